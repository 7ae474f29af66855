"""Modules as they are best run in evaluation: folded norms, memory format, number format."""
