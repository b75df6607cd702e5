"""What param groups keep between steps: lengths, counts, checkpoints, schedules."""
