"""A model zoo for medical vision-language research."""

__version__ = "0.1.0"
