"""`ait-jax grow`: metadata of datasets become tasks, as in Dynosaur (arXiv 2305.14327).

In the order of the data flow: dataset, screening, sources (with cards, tfds_catalog), proposal, the
generators (conversation and dictionaries, or templates), instances, grown_pool, steering, growth.
"""
