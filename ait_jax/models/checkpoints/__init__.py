"""Checkpoints in and out, in every format."""
