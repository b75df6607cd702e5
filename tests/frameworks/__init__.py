"""Real trainers of other libraries around a warmed optimizer."""
