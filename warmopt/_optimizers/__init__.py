"""What warmopt knows about the optimizers that it wraps."""
