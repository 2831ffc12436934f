"""Unsafe/safe prompt pairs: written by a language model or imported, validated either way."""
