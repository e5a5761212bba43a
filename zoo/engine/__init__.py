"""Whatever runs: training, evaluation, prediction, comparison, planning, publishing and verification."""
