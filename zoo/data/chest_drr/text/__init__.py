"""Reports, questions and reasoning traces about rendered radiographs, and the labeller that reads them back."""
