"""Gin: reading, checking, its errors."""
