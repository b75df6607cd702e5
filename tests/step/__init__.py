"""One step: the learning rate goes up, the optimizer steps, the rate comes back."""
