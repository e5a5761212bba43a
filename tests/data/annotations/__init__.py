"""Readers of public forms."""
