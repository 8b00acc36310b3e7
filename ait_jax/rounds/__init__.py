"""The loop, and the run directory."""
