"""Metrics that torchmetrics lacks, and intervals."""
