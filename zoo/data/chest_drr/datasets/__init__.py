"""Rendered radiographs as data sets, one a task."""
