"""Adaptive mode: when a warmup counts as settled, and what it does then."""
