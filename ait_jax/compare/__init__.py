"""Strategies x seeds, and what their differences mean."""
