"""Radiographs with known findings, rendered from a chest CT."""
