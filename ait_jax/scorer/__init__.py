"""Decode the original prompt, teacher-force its answer under every prompt."""
