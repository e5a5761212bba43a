"""Heads: features to masks."""
