"""The optimizers that configs start from.

The trainer fills in `optimizer.params.model`. A config scales the backbone's learning rate by
`optimizer.params.lr_factor_func = backbone_lr_factor` of `detrex.config.optim`.
"""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from detrex.modeling.backbone.training.layer_decay import get_layer_decay_params

SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)

AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.1,
)

# Learning rates fall with the depth of the backbone's layers, 0.8 times from one to the one before.
AdamWLayerDecay = L(torch.optim.AdamW)(
    params=L(get_layer_decay_params)(base_lr="${..lr}", decay_rate=0.8),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.1,
)
