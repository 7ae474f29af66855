"""The way of an image through a backbone: its size, the maps of a network, the levels."""
