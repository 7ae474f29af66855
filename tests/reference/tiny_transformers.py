"""Tiny networks of transformers, by type, and their maps as transformers itself gives them."""

import inspect
from collections.abc import Sequence

import torch
import transformers
from torch import nn

VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE_VIT = VIT | {"intermediate_size": 24}
SMALL_VIT = WIDE_VIT | {"image_size": 64}
STAGES = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
RESNET = STAGES | {"embedding_size": 8}
ATTENTIVE = STAGES | {"num_attention_heads": [1, 1, 2, 2]}
SWIN = {
    **{"image_size": 64, "embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "window_size": 4,
}
HIERA = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
VITDET = VIT | {
    **{"image_size": 64, "window_size": 2, "window_block_indices": [0]},
    "use_relative_position_embeddings": True,
}

TYPES = {
    "beit": SMALL_VIT,
    "clip_vision_model": SMALL_VIT,
    "convnext": STAGES,
    "dinov2": VIT,
    "dinov3_vit": WIDE_VIT,
    "hiera": HIERA,
    "resnet": RESNET,
    "segformer": ATTENTIVE,
    "swin": SWIN,
    "vit": SMALL_VIT,
    "vit_mae": SMALL_VIT,
}
"""Types that the tests of every day build."""

MORE_TYPES = {
    "bit": {"embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "num_groups": 4}
    | {"depths": [1, 1, 1, 1]},
    "convnextv2": STAGES,
    "data2vec-vision": SMALL_VIT,
    "deit": SMALL_VIT,
    "dinov2_with_registers": VIT,
    "dinov3_convnext": STAGES,
    "donut-swin": SWIN | {"window_size": 2},
    "focalnet": STAGES | {"image_size": 64, "embed_dim": 8},
    "lw_detr_vit": VIT | {"image_size": 64},
    "maskformer-swin": SWIN,
    "mobilenet_v2": {"depth_multiplier": 0.35},
    "poolformer": STAGES,
    "pvt_v2": ATTENTIVE,
    "regnet": RESNET | {"groups_width": 4, "hidden_sizes": [8, 12, 16, 24]},
    "rt_detr_resnet": RESNET,
    "siglip_vision_model": SMALL_VIT,
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32]},
    "swinv2": SWIN,
    "vit_msn": SMALL_VIT,
    "vitdet": VITDET,
}
MORE_TYPES = {kind: MORE_TYPES[kind] for kind in MORE_TYPES if kind in transformers.CONFIG_MAPPING}
"""Types that the slow tests build besides."""


def built_by_transformers(kind: str, keywords: dict, places: list[int] | None = None) -> nn.Module:
    """Build a network as a user of transformers does, with random values in every tensor.

    Args:
        kind: type of transformers.
        keywords: of its config.
        places: stages that a class for backbones gives; None for all.
    """
    config = transformers.CONFIG_MAPPING[kind](**keywords)
    auto = transformers.models.auto.modeling_auto
    is_backbone = type(config) in auto.MODEL_FOR_BACKBONE_MAPPING
    if is_backbone:
        first = int(kind == "maskformer-swin")  # which has no stem to give
        every = list(range(first, len(config.stage_names)))
        config.out_indices = every if places is None else places
    if kind == "vit_mae":
        config.mask_ratio = 0.0
    chosen = transformers.AutoBackbone if is_backbone else transformers.AutoModel
    network = chosen.from_config(config).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "running_" in name:
                tensor.uniform_(0.5, 1)
            elif tensor.is_floating_point():
                tensor.normal_(std=0.1)
    return network


def maps_by_transformers(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor | None]:
    """Give the maps that transformers itself gives for images, tokens laid out on their grid."""
    if hasattr(network, "out_features"):
        given = dict(zip(network.out_indices, network(images).feature_maps, strict=True))
        return [given.get(place) for place in range(max(given) + 1)]
    keywords = {"output_hidden_states": True}
    patch = getattr(network.config, "patch_size", None)
    if network.config.model_type == "vit_mae":
        count = (images.shape[-2] // patch) * (images.shape[-1] // patch)
        keywords["noise"] = torch.arange(count).expand(len(images), -1)
    takes = inspect.signature(network.forward).parameters
    is_free = {"interpolate_pos_encoding", "kwargs"} & takes.keys()
    if tuple(images.shape[-2:]) != (64, 64) and patch is not None and is_free:
        keywords["interpolate_pos_encoding"] = True
    outputs = network(images, **keywords)
    states = list(getattr(outputs, "reshaped_hidden_states", None) or outputs.hidden_states)
    last = outputs.last_hidden_state
    grid = states[-1].shape[-2:]
    states[len(states) - (states[-1].shape == last.shape) :] = [last]
    if states[0].dim() == 3:
        grid = [side // patch for side in images.shape[-2:]]
    return [_on_grid(state, grid) if state.dim() == 3 else state for state in states]


def _on_grid(tokens: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Lay the last tokens out on a grid, those of no place left out."""
    rows, columns = grid
    return tokens[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
