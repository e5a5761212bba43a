"""Interleaved reasoning traces: reports whose chain of thought holds image evidence."""
