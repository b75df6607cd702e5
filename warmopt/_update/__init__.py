"""One update: the LR on and off, and what is planned for it."""
