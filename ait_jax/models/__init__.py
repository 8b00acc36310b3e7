"""T5 in Flax, decoding, likelihoods and checkpoints."""
