"""The folder of a run: who writes to it, whose checkpoints and metrics are in it.

lock       one training at a time
identity   which run it is, what differs from the one that is resumed, what an earlier one left
"""
