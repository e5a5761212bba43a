"""CLIP towers and vision encoders."""
