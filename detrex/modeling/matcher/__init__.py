"""Which prediction answers for which object."""

from .match_cost import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost
from .matcher import HungarianMatcher
from .modified_matcher import ModifedMatcher

__all__ = [
    "CrossEntropyCost",
    "FocalLossCost",
    "GIoUCost",
    "HungarianMatcher",
    "L1Cost",
    "ModifedMatcher",
]
