"""Where a param group stands in its warmup."""
