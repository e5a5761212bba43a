"""Conversations about one image whose answers refer to masks, and the formats they are read from."""
