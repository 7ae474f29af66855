"""Exponential moving average of a model's weights, kept beside the model while it trains.

    may_build_model_ema      cfg -> model.ema_state (an EMAState)
    EMAHook, EMAUpdater      after every step: average <- decay * average + (1 - decay) * weights
    apply_model_ema*         average -> model, for good or for the length of a `with`
    may_get_ema_checkpointer cfg -> {"ema_state": ...}, to save and resume it

The interface, and the layout of ``ema_state`` in checkpoints, are those of the original detrex,
which has them from d2go. A tensor that the model knows under several names is averaged once.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detrex.checkpoint.placement import placed_like
from detrex.config import try_get_key
from detrex.errors import CheckpointError, ConfigError
from detrex.modeling.ema_pairs import EMAPairs

__all__ = [
    "EMAHook",
    "EMAState",
    "EMAUpdater",
    "apply_model_ema",
    "apply_model_ema_and_restore",
    "get_model_ema_state",
    "may_build_model_ema",
    "may_get_ema_checkpointer",
]

logger = logging.getLogger(__name__)

Device = str | torch.device


class EMAState:
    """The averaged parameters and buffers of a model, by name.

    Attributes:
        state: averages by the name of the parameter or buffer; empty until `save_from` or
            `load_state_dict`.
    """

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    @classmethod
    def FromModel(cls, model: nn.Module, device: Device = "") -> "EMAState":  # noqa: N802
        """Make a state that starts at the model's present weights; see `save_from`."""
        state = cls()
        state.save_from(model, device)
        return state

    def save_from(self, model: nn.Module, device: Device = "") -> None:
        """Copy the model's weights into the state.

        Args:
            model: the model, wrapped for distributed training or not.
            device: where to keep the copies; empty for where the weights are.
        """
        for name, value in self.get_model_state_iterator(model):
            self.state[name] = value.detach().to(device or value.device, copy=True)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Copy the state into the model's weights, in place.

        Raises:
            CheckpointError: the state is empty, or of another model.
        """
        if not self.has_inited():
            raise CheckpointError(
                "there is no moving average to apply: train with train.model_ema.enabled=True, or "
                "load a checkpoint that holds 'ema_state'"
            )
        self.rename_for(model)
        values = dict(self.get_model_state_iterator(model))
        self._check_names(values)
        for name, value in values.items():
            if value.shape != self.state[name].shape:
                raise CheckpointError(
                    f"the moving average of {name} has shape {tuple(self.state[name].shape)} and "
                    f"the model's {tuple(value.shape)}: use the config that it was trained with"
                )
        for name, value in values.items():
            value.copy_(self.state[name])

    @contextmanager
    def apply_and_restore(self, model: nn.Module) -> Iterator["EMAState"]:
        """Give the model the averaged weights for the length of a ``with`` block.

        Yields:
            The state of the model's own weights, which come back at the end.
        """
        own = EMAState.FromModel(model)
        self.apply_to(model)
        try:
            yield own
        finally:
            own.apply_to(model)

    def get_ema_model(self, model: nn.Module) -> nn.Module:
        """Copy the model, and give the copy the averaged weights."""
        model = _remove_ddp(model)
        # The copy needs no moving average of its own.
        memo: dict[int, Any] = {id(getattr(model, "ema_state", self)): None}
        averaged = copy.deepcopy(model, memo)
        self.apply_to(averaged)
        return averaged

    @property
    def device(self) -> torch.device | None:
        """Where the averages are kept; none while the state is empty."""
        return next((value.device for value in self.state.values()), None)

    def to(self, device: Device) -> "EMAState":
        """Move the averages to a device, and return this state."""
        self.state = {name: value.to(device) for name, value in self.state.items()}
        return self

    def has_inited(self) -> bool:
        """Tell whether the state holds averages."""
        return bool(self.state)

    def clear(self) -> "EMAState":
        """Forget the averages, and return this state."""
        self.state.clear()
        return self

    def get_model_state_iterator(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Go through the parameters, then the buffers that a checkpoint of the model holds.

        A tensor with several names comes once, under its first.
        """
        model = _remove_ddp(model)
        saved = model.state_dict(keep_vars=True).keys()
        yield from model.named_parameters()
        yield from ((name, value) for name, value in model.named_buffers() if name in saved)

    def rename_for(self, model: nn.Module) -> "EMAState":
        """Call each average as the model does first, where it was kept under another alias."""
        model = _remove_ddp(model)
        tensors = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        first: dict[int, str] = {}
        alias = {name: first.setdefault(id(value), name) for name, value in tensors}
        self.state = {alias.get(name, name): value for name, value in self.state.items()}
        return self

    def place_like(self, model: nn.Module) -> "EMAState":
        """Cut each average as the model's weight is, where FSDP has sharded that."""
        for name, value in self.get_model_state_iterator(model):
            if name in self.state:
                self.state[name] = placed_like(self.state[name], value)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by name, not copied."""
        return dict(self.state)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> None:
        """Take over averages from a checkpoint.

        Args:
            state_dict: averages by name; they are copied to where this state's are.
            strict: whether the names must be those of this state, when it holds any; otherwise
                only the names of this state are taken over.

        Raises:
            CheckpointError: the names differ and ``strict`` is set.
        """
        if not self.has_inited():
            self.state = {name: value.detach().clone() for name, value in state_dict.items()}
            return
        if strict:
            self._check_names(state_dict)
        for name in self.state.keys() & state_dict.keys():
            self.state[name] = state_dict[name].detach().to(self.state[name].device, copy=True)

    def _check_names(self, others: Mapping[str, Tensor]) -> None:
        differing = sorted(self.state.keys() ^ others.keys())
        if differing:
            raise CheckpointError(
                f"the moving average is of another model, {len(differing)} names differ, such as "
                f"{', '.join(map(repr, differing[:3]))}: use the config that it was trained with"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.state)} tensors on {self.device})"


class EMAUpdater:
    """Move an `EMAState` towards a model's weights, one step at a time.

    ``average <- decay * average + (1 - decay) * weight`` for floating tensors, buffers such as a
    batch norm's statistics among them; counters and other whole numbers are copied.
    """

    def __init__(self, state: EMAState, decay: float = 0.999, device: Device = "") -> None:
        """Bind the updater to a state.

        Args:
            state: what to update.
            decay: the share of the old average that is kept, from 0 to 1.
            device: where to keep the averages; empty for where the weights are.

        Raises:
            ConfigError: ``decay`` is not from 0 to 1.
        """
        if not 0 <= decay <= 1:
            raise ConfigError(
                f"the moving average's decay is {decay!r}, expected a number from 0 to 1: set "
                "train.model_ema.decay, for example to 0.999"
            )
        self.state = state
        self.decay = decay
        self.device = device
        self._pairs: EMAPairs | None = None

    def init_state(self, model: nn.Module) -> None:
        """Start the average anew at the model's present weights."""
        self.state.clear()
        self.state.save_from(model, self.device)

    def update(self, model: nn.Module) -> None:
        """Move the averages one step towards the model's weights.

        Args:
            model: the model whose weights the state was started from.
        """
        model = _remove_ddp(model)
        averages = self.state.state
        if self._pairs is None or not self._pairs.are_those_of(averages, model):
            named = self.state.get_model_state_iterator(model)
            self._pairs = EMAPairs(averages, model, named)
        self._pairs.step(self.decay)


class EMAHook(HookBase):
    """Update the model's moving average after every training step.

    It goes before the hooks that save and evaluate, so that these see the average of the same step.
    """

    def __init__(self, cfg: Any, model: nn.Module) -> None:
        """Read the settings and find the state that `may_build_model_ema` made.

        Args:
            cfg: a config with ``train.model_ema`` (``enabled``, ``decay``, ``device``).
            model: the model that trains, wrapped for distributed training or not.

        Raises:
            ConfigError: the model has no moving average, or its settings are wrong.
        """
        settings = cfg.train.model_ema
        self.model = _remove_ddp(model)
        self.ema: EMAState = get_model_ema_state(self.model)
        self.device: Device = settings.get("device", "") or ""
        self.ema_updater = EMAUpdater(self.ema, settings.get("decay", 0.999), self.device)

    def before_train(self) -> None:
        """Start the average at the model's weights, unless it was resumed."""
        if self.ema.has_inited():
            device = self.device or next(self.model.parameters()).device
            self.ema.rename_for(self.model).to(device).place_like(self.model)
        else:
            self.ema_updater.init_state(self.model)

    def after_train(self) -> None:
        """Do nothing: the average stays beside the model."""

    def before_step(self) -> None:
        """Do nothing: the average moves after the step."""

    def after_step(self) -> None:
        """Move the average one step."""
        if self.model.training:
            self.ema_updater.update(self.model)


def _remove_ddp(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel | DataParallel) else model


def may_build_model_ema(cfg: Any, model: nn.Module) -> None:
    """Give the model an empty moving average, ``model.ema_state``, if the config wants one.

    Args:
        cfg: a config with ``train.model_ema.enabled``.
        model: the model, wrapped for distributed training or not.

    Raises:
        ConfigError: the model has an attribute ``ema_state`` already.
    """
    if not _is_wanted(cfg):
        return
    model = _remove_ddp(model)
    if hasattr(model, "ema_state"):
        raise ConfigError(
            f"{type(model).__name__} has an attribute 'ema_state' already: build its moving "
            "average once"
        )
    model.ema_state = EMAState()  # type: ignore[assignment]
    logger.info(
        "Keeping a moving average of the weights, decay %s",
        try_get_key(cfg, "train.model_ema.decay", default=0.999),
    )


def _is_wanted(cfg: Any) -> bool:
    return bool(try_get_key(cfg, "train.model_ema.enabled", default=False))


def may_get_ema_checkpointer(cfg: Any, model: nn.Module) -> dict[str, EMAState]:
    """Name the moving average for a checkpointer.

    Args:
        cfg: a config with ``train.model_ema.enabled``.
        model: the model, wrapped for distributed training or not.

    Returns:
        ``{"ema_state": state}``, or nothing if the config wants no moving average.
    """
    return {"ema_state": get_model_ema_state(model)} if _is_wanted(cfg) else {}


def get_model_ema_state(model: nn.Module) -> EMAState:
    """Return the moving average of a model.

    Raises:
        ConfigError: it has none.
    """
    model = _remove_ddp(model)
    state = getattr(model, "ema_state", None)
    if not isinstance(state, EMAState):
        raise ConfigError(
            f"{type(model).__name__} has no moving average: set train.model_ema.enabled=True and "
            "call may_build_model_ema(cfg, model) first"
        )
    return state


def apply_model_ema(
    model: nn.Module, state: EMAState | None = None, save_current: bool = False
) -> EMAState | None:
    """Give the model the averaged weights.

    Args:
        model: the model.
        state: the averages; by default the model's own.
        save_current: whether to keep a copy of the weights that the model has now.

    Returns:
        The state of the weights that the model had, if ``save_current`` is set.
    """
    state = state if state is not None else get_model_ema_state(model)
    current = EMAState.FromModel(model) if save_current else None
    state.apply_to(model)
    return current


@contextmanager
def apply_model_ema_and_restore(
    model: nn.Module, state: EMAState | None = None
) -> Iterator[EMAState]:
    """Give the model the averaged weights for the length of a ``with`` block.

    Args:
        model: the model.
        state: the averages; by default the model's own.

    Yields:
        The state of the model's own weights, which come back at the end.
    """
    state = state if state is not None else get_model_ema_state(model)
    with state.apply_and_restore(model) as own:
        yield own
