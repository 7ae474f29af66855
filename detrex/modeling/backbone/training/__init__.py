"""How any network trains: what is frozen, norms, checkpoints, learning rates by layer."""
