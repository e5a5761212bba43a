"""Causal language models, and vision-language models that answer questions."""
