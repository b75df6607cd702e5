"""What is known of other optimizers."""
