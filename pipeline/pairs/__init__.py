"""Preference pairs: which prompt pairs are kept, which are dropped and why."""
