"""Stages of the DVC graph side by side, on one machine or many; DVC stays the single truth."""
