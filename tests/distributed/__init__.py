"""Real process groups: the same warmup on every rank."""
