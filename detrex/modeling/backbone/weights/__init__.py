"""Where weights come from, how they reach a network, and what their origin says of images."""
