"""What a model itself gives for an image, and how far the run of a file is from that.

DINO gives its queries a learnt content by the rank of the token that they begin from. Where two
tokens score the same but for rounding, another program may rank them otherwise, and those queries
then answer otherwise. So the choice of tokens is compared by the tokens' scores, and the detections
with those of the model for the same choice.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detrex.errors import ConfigError, DetrexError
from detrex.export.comparison import (
    DETECTION_TOLERANCE,
    MAP_TOLERANCE,
    difference_of_choices,
    difference_of_detections,
    difference_of_maps,
    require_same_shapes,
)
from detrex.export.program import first_line
from detrex.export.tensor_modules import TensorBackbone, TensorDetector


class TokenChoice(TorchDispatchMode):
    """Records, or prescribes, the first top-k of a run: the tokens that queries begin from.

    Args:
        tokens: the choice (k,) to take in place of the run's own.

    Attributes:
        tokens: the choice that was taken; None before a run, and where it has no top-k.
        scores: what was chosen by (s,).
    """

    def __init__(self, tokens: Tensor | None = None) -> None:
        super().__init__()
        self.tokens = tokens
        self.scores: Tensor | None = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not torch.ops.aten.topk.default or self.scores is not None:
            return func(*args, **(kwargs or {}))
        self.scores = args[0].flatten()
        if self.tokens is None:
            result = func(*args, **(kwargs or {}))
            self.tokens = result[1].flatten()
            return result
        index = self.tokens.reshape(*args[0].shape[:-1], -1)
        return args[0].gather(-1, index), index


class Reference:
    """A model's own answer for an image.

    Args:
        module: the model as a function of a tensor.
        image: what it takes.

    Attributes:
        outputs: by their names.
        tolerance: the largest difference that rounding may make.

    Raises:
        ConfigError: it fails on the image.
    """

    def __init__(self, module: TensorBackbone | TensorDetector, image: Tensor) -> None:
        self.module, self.image = module, image
        self.size = (int(image.shape[-2]), int(image.shape[-1]))
        self.choice = TokenChoice()
        if isinstance(module, TensorDetector):
            self.tolerance = DETECTION_TOLERANCE
            self.queries = self._run(module.queries, self.choice)
            self.outputs = module.best(*self.queries)
        else:
            self.tolerance = MAP_TOLERANCE
            self.outputs = self._run(module, self.choice)

    def difference(self, outputs: Mapping[str, Tensor], tokens: Tensor | None) -> float:
        """Say how far another run on the image is from the model.

        Args:
            outputs: by their names.
            tokens: that run's first top-k (k,); None where it has none.

        Returns:
            The largest difference, as `detrex.export.comparison` measures it.

        Raises:
            ConfigError: names or shapes differ.
        """
        if not isinstance(self.module, TensorDetector):
            return difference_of_maps(self.outputs, outputs)
        require_same_shapes(self.outputs, outputs)
        queries, apart = self.queries, 0.0
        own, scores = self.choice.tokens, self.choice.scores
        if own is not None and scores is not None and tokens is not None:
            apart = difference_of_choices(scores, own, tokens)
            if 0 < apart <= self.tolerance:
                queries = self._run(self.module.queries, TokenChoice(tokens))
        logits, boxes = queries
        return max(apart, difference_of_detections(logits, boxes, outputs, max(self.size)))

    def _run(self, function: Callable[[Tensor], Any] | nn.Module, choice: TokenChoice) -> Any:
        try:
            with torch.no_grad(), choice:
                return function(self.image)
        except DetrexError:
            raise
        except Exception as error:  # a forward can fail in any way
            height, width = self.size
            raise ConfigError(
                f"the model cannot run on an image of {height} x {width}: {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
