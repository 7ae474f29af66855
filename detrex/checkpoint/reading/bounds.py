"""How much memory a weights file may take while it is read, as a multiple of its own size.

What a file claims is compared with the bytes that it has before memory is reserved. What its few
bytes can make (a byte of a pickle makes an empty set of 223 bytes, a deflated record a thousand
times itself) is added up, and refused beyond `allowance`.
"""

FACTOR = 16
"""How many times a file's size its objects, or its inflated records, may take."""

CONSTANT = 64 * 2**20
"""Bytes that those of any file may take, however small."""

PEAK = 2 * FACTOR
"""How many times a file's size, with `CONSTANT`, a process grows by at most while it reads one.

The file's bytes, tensors beside the pages of the file that they are copied from, and the lists that
Python's zip and JSON readers make come on top of what is added up.
"""


def allowance(size: int) -> int:
    """Say what the objects or the inflated records of a file may take.

    Args:
        size: of the file, in bytes.

    Returns:
        Bytes of memory.
    """
    return FACTOR * size + CONSTANT
