"""Recipes: read and merged, checked against signatures, resolved into a tree of components and built from it."""
