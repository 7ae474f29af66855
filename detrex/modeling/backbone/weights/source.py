"""Where weights are: what each library's folder finds, and what `pretrained` loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WeightsSource:
    """Where weights are, and what their library says of them.

    Attributes:
        addresses: paths or addresses of the same weights, to try in this order.
        pretrained_cfg: timm's description of them, where they are timm's.
        member: torchvision's enum member, where they are torchvision's.
        content: the weights themselves, where they are given as they are.
    """

    addresses: tuple[str, ...]
    pretrained_cfg: Mapping[str, Any] | None = None
    member: Any = None
    content: Mapping[str, Any] | None = None
