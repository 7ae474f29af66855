import copy
import logging

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from torch import nn
from torch.testing import assert_close

from detrex.config import lazy_call  # noqa: F401
from detrex.errors import BackboneError, ConfigError
from detrex.modeling import optimize_for_inference
from detrex.modeling.backbone import ResNet, TimmBackbone, TorchvisionBackbone
from detrex.modeling.inference import optimize
from detrex.modeling.inference.norm_folding import has_fixed_statistics
from tests.modeling.inference.norms import draw_statistics
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_detectors import DETECTORS, tiny_detector
from tests.reference.tiny_dino import random_inputs, tiny_dino
