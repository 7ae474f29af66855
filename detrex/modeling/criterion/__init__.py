"""Criteria: from outputs and targets to a dict of losses."""

from .base_criterion import BaseCriterion
from .criterion import SetCriterion
from .two_stage_criterion import TwoStageCriterion

__all__ = ["BaseCriterion", "SetCriterion", "TwoStageCriterion"]
