"""Random boxes, predictions and targets of small sizes."""

import torch


def random_boxes(*shape):
    """Draw (*shape, 4) ``cxcywh`` boxes inside the image."""
    center = torch.rand(*shape, 2) * 0.6 + 0.2
    return torch.cat([center, torch.rand(*shape, 2) * 0.3 + 0.05], dim=-1)


def random_targets(counts=(3, 0), num_classes=5):
    """Draw the targets of one image per count."""
    return [{"labels": torch.randint(num_classes, (n,)), "boxes": random_boxes(n)} for n in counts]


def random_outputs(batch=2, queries=7, num_classes=5, aux=0):
    """Draw one layer's outputs that take gradients, with ``aux`` more as ``aux_outputs``."""
    outputs = {
        "pred_logits": torch.randn(batch, queries, num_classes).requires_grad_(),
        "pred_boxes": random_boxes(batch, queries).requires_grad_(),
    }
    if aux:
        outputs["aux_outputs"] = [random_outputs(batch, queries, num_classes) for _ in range(aux)]
    return outputs
