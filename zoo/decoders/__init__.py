"""Features or tokens to images and text."""
