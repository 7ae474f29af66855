"""Necks: from the backbone's maps to the detector's levels."""

from .channel_mapper import ChannelMapper

__all__ = ["ChannelMapper"]
