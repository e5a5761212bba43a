"""Vision and text encoders that other parts build on."""
