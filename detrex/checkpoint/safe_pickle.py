"""Unpickle numbers and arrays without running code that the file brings along."""

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np


class ForbiddenClassError(pickle.UnpicklingError):
    """A pickle asks for a class or function that is not needed for arrays."""


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``codecs.encode``, by which Python 3 wrote bytes into old pickles."""
    if encoding != "latin1":
        raise ForbiddenClassError(f"codec {encoding}")
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Unpickle numbers, strings, containers and numpy arrays, and refuse everything else."""

    # numpy 2 moved these functions; an array itself knows where they are.
    _ALLOWED = {
        "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
        "multiarray.scalar": np.float32(0).__reduce__()[0],
        "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    }
    CALLABLES = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _encode,
        **{f"numpy.core.{name}": function for name, function in _ALLOWED.items()},
        **{f"numpy._core.{name}": function for name, function in _ALLOWED.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        """Give what a name stands for, which is never imported."""
        try:
            return self.CALLABLES[f"{module}.{name}"]
        except KeyError:
            raise ForbiddenClassError(f"{module}.{name}") from None
