"""Modules as they are best run in evaluation: folded norms, packed weights, number format."""
