"""Labelled images: few-shot protocols and the formats they are read from."""
