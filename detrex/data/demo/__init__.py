"""Data sets for the examples: drawn ones, and photographs that the package index serves.

shapes        coloured shapes on textured grounds, drawn anew anywhere
photographs   aerial photographs of trees with boxes, and pretrained weights
pinned_wheel  files out of pinned packages, fetched once, by hash
"""
