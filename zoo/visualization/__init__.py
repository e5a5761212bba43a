"""Figures, pages, tables and curves for people."""
