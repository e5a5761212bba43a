"""Datasets and readers, one file a source or format."""
