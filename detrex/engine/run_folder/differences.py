"""What differs between the configs of two starts of a run."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from detrex.checkpoint.download import without_secrets
from detrex.utils.events import plain

_LONGEST = 200
_MOST_LINES = 20
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Write down a config by full key, such as ``train.amp.enabled``.

    Args:
        cfg: the config; interpolations are resolved where they can be.

    Returns:
        Numbers, texts, truth values and null, the same for the same config in every process. Lists
        are texts; a long value is a digest.
    """
    return dict(_flat(plain(cfg, resolve=True), ""))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what changed, a line each, such as ``  train.max_iter: 100 -> 200``.

    Args:
        old: what `describe` gave at an earlier start.
        new: what it gives now.

    Returns:
        At most twenty lines and one that counts the others.
    """
    keys = [key for key in sorted({*old, *new}) if _shown(old, key) != _shown(new, key)]
    lines = [f"  {key}: {_shown(old, key)} -> {_shown(new, key)}" for key in keys[:_MOST_LINES]]
    return lines + ([f"  and {len(keys) - _MOST_LINES} more"] if len(keys) > _MOST_LINES else [])


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif value is None or isinstance(value, bool | int | float):
        yield key, value
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        text = without_secrets(_ADDRESS.sub("", text))
        if len(text) > _LONGEST:
            digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
            text = f"{text[:60]}... ({len(text)} characters, {digest})"
        yield key, text


def _shown(config: Mapping[str, Any], key: str) -> str:
    return str(config[key]) if key in config else "(not there)"
