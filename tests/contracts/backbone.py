"""The laws that every backbone obeys, each a function of a backbone and an image that it takes."""

import copy

import torch
from detectron2.modeling.backbone import Backbone
from torch import Tensor
from torch.testing import assert_close

# Rotary tables, which EVA-02's checkpoints have for each block besides.
ALIASES = (".attn.rope.freqs_cos", ".attn.rope.freqs_sin")


def check_publishes_its_outputs(backbone: Backbone, image: Tensor) -> None:
    """``output_shape()`` is true in names, order, channels and strides; outputs are NCHW maps."""
    outputs = backbone.eval()(image)
    shapes = backbone.output_shape()
    assert isinstance(backbone, Backbone)
    assert isinstance(outputs, dict)
    assert list(outputs) == list(shapes) == backbone._out_features
    for name, spec in shapes.items():
        height, width = (size // spec.stride for size in image.shape[-2:])
        assert outputs[name].shape == (len(image), spec.channels, height, width)
        formats = (torch.contiguous_format, torch.channels_last)
        assert any(outputs[name].is_contiguous(memory_format=f) for f in formats)


def check_order_is_fixed(backbone: Backbone, image: Tensor) -> None:
    """Both modes give the outputs in one order."""
    assert list(backbone.train()(image)) == list(backbone.eval()(image))


def check_gradients_reach_the_image(backbone: Backbone, image: Tensor) -> None:
    """Every output depends on the image."""
    image = image.clone().requires_grad_(True)
    for output in backbone.eval()(image).values():
        (gradient,) = torch.autograd.grad(output.square().sum(), image, retain_graph=True)
        assert gradient.abs().sum() > 0


def check_every_trainable_parameter_is_used(backbone: Backbone, image: Tensor) -> None:
    """Each parameter that needs a gradient gets one, as DistributedDataParallel demands."""
    backbone.train().zero_grad()
    sum(output.sum() for output in backbone(image).values()).backward()
    unused = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    backbone.zero_grad()
    assert unused == []


def check_no_tensor_is_registered_twice(backbone: Backbone, image: Tensor) -> None:
    """Every name in the state dict is a tensor of its own, but for aliases of the original's."""
    names = [name for name, _ in backbone.named_parameters(remove_duplicate=False)]
    assert names == [name for name, _ in backbone.named_parameters()]
    state = {n: t for n, t in backbone.state_dict().items() if not n.endswith(ALIASES)}
    tensors = [t for t in state.values() if t.numel()]
    assert len({t.data_ptr() for t in tensors}) == len(tensors)


def check_runs_on_meta(backbone: Backbone, image: Tensor) -> None:
    """A copy on the ``meta`` device gives outputs of the same shapes."""
    expected = {name: output.shape for name, output in backbone.eval()(image).items()}
    outputs = copy.deepcopy(backbone).to("meta")(image.to("meta"))
    assert {name: output.shape for name, output in outputs.items()} == expected
    assert all(output.is_meta for output in outputs.values())


def check_frozen_parts_stay_frozen(backbone: Backbone, image: Tensor) -> None:
    """Frozen modules stay in evaluation mode, and a training step changes nothing in them."""
    backbone = copy.deepcopy(backbone).train()
    frozen = [backbone.get_submodule(name) for name in backbone.frozen_modules]
    before = [copy.deepcopy(module.state_dict()) for module in frozen]
    sum(output.sum() for output in backbone(image).values()).backward()
    torch.optim.SGD(backbone.parameters(), lr=0.1, weight_decay=0.1).step()
    assert frozen
    for module, state in zip(frozen, before, strict=True):
        assert not any(child.training for child in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
        for name, tensor in module.state_dict().items():
            assert_close(tensor, state[name], rtol=0, atol=0)


def check_state_dict_round_trip(backbone: Backbone, image: Tensor) -> None:
    """A copy that gets the state dict gives the same outputs."""
    twin = copy.deepcopy(backbone).eval()
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(backbone.state_dict(), strict=True)
    expected = backbone.eval()(image)
    for name, output in twin(image).items():
        assert_close(output, expected[name], rtol=0, atol=0)


LAWS = (
    check_publishes_its_outputs,
    check_order_is_fixed,
    check_gradients_reach_the_image,
    check_every_trainable_parameter_is_used,
    check_no_tensor_is_registered_twice,
    check_runs_on_meta,
    check_frozen_parts_stay_frozen,
    check_state_dict_round_trip,
)
