"""Preference pairs in forms for others: ``python -m pipeline.exports``."""
