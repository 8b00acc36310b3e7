"""`ait-jax grow`: datasets' metadata become tasks, as in Dynosaur (arXiv 2305.14327).

In the order in which data flows: dataset, tally, screening, the sources (cards, authors_files,
tfds_catalogue), proposal, the generators (conversation and dictionaries, or templates),
label_space, instances, grown_pool, growth.
"""
