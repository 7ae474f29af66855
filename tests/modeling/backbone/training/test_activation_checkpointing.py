"""Checkpointing changes what is kept for the backward pass, and no number."""

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.errors import BackboneError
from detrex.modeling.backbone.training.activation_checkpointing import checkpoint_blocks

timm = pytest.importorskip("timm")

TIMM = {
    "resnet18": ({"drop_path_rate": 0.3}, 8, (67, 75)),
    "test_convnext": ({"drop_path_rate": 0.3}, 9, (67, 75)),
    "swin_tiny_patch4_window7_224": (
        {"img_size": (64, 96), "depths": (2, 2, 2, 2), "embed_dim": 24, "window_size": 4},
        8,
        (64, 96),
    ),
    "test_vit": (
        {"dynamic_img_size": True, "dynamic_img_pad": True, "proj_drop_rate": 0.2},
        6,
        (67, 75),
    ),
    "efficientnet_b0": ({"drop_path_rate": 0.3}, 15, (67, 75)),
}


def torchvision_vit():
    return torchvision.models.VisionTransformer(64, 16, 3, 2, 24, 48, dropout=0.2, num_classes=3)


def torchvision_swin():
    return torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [1, 2], [4, 4], 2, 0.1)


def torchvision_convnext():
    setting = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([setting(8, 16, 2), setting(16, None, 2)], 0.3)


GRAPHS = {
    "resnet18": (torchvision.models.resnet18, ["layer2", "layer3"], 6, (67, 75)),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, ["features.6", "features.13"], 13, (67, 75)),
    "convnext": (torchvision_convnext, ["features.1", "features.3"], 4, (67, 75)),
    "swin": (torchvision_swin, ["features.1", "features.3"], 4, (67, 75)),
    "vit": (torchvision_vit, ["encoder.ln"], 3, (64, 64)),
}


def timm_network(name):
    torch.manual_seed(0)
    keywords, blocks, size = TIMM[name]
    return timm.create_model(name, features_only=True, **keywords).double().train(), blocks, size


def graph_network(name):
    torch.manual_seed(0)
    build, nodes, blocks, size = GRAPHS[name]
    return create_feature_extractor(build(), nodes).double().train(), blocks, size


def step(network, image):
    """Loss, gradients and statistics of one step."""
    network.zero_grad()
    torch.manual_seed(1)
    outputs = network(image)
    maps = outputs.values() if isinstance(outputs, dict) else outputs
    loss = sum(
        (m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view(m.shape)).sum() for m in maps
    )
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {n: b.clone() for n, b in network.named_buffers()}


def saved_bytes(network, image):
    held = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    sizes = {}
    torch.manual_seed(2)

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(image)
    assert outputs is not None
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("make", "name"), [(timm_network, n) for n in TIMM] + [(graph_network, n) for n in GRAPHS]
)
def test_checkpoint_blocks__changes_no_number(make, name):
    plain, blocks, size = make(name)
    network = copy.deepcopy(plain)
    keys, kind = list(network.state_dict()), type(network).__mro__[1]
    assert checkpoint_blocks(network) == blocks
    assert list(network.state_dict()) == keys
    assert isinstance(network, kind)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    copied = copy.deepcopy(network)
    expected = step(plain, image)
    for other in (network, copied):
        assert_close(step(other, image), expected, rtol=1e-11, atol=1e-11)
    limit = 0.8 * saved_bytes(plain, image)
    assert saved_bytes(network, image) < limit
    assert saved_bytes(copied, image) < limit
    assert_close(network.eval()(image), plain.eval()(image), rtol=0, atol=0)
    network.train()
    assert_close(step(network, image), step(plain.train(), image), rtol=1e-11, atol=1e-11)


def test_checkpoint_blocks__passes_over_frozen_blocks():
    network, blocks, _ = timm_network("resnet18")
    network.layer1.requires_grad_(False)
    assert checkpoint_blocks(network) == blocks - len(network.layer1)


def test_checkpoint_blocks__survives_pickling():
    network, _, size = timm_network("resnet18")
    checkpoint_blocks(network)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = step(copy.deepcopy(network), image)
    assert_close(step(pickle.loads(pickle.dumps(network)), image), expected)


class Pair(nn.Module):
    """A block that takes a keyword and gives a dict."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x, *, scale):
        return {"x": self.linear(x) * scale, "scale": scale}


class ChangesItsInput(Pair):
    def forward(self, x):
        return self.linear(x.relu_())


def test_checkpoint_blocks__takes_keywords_and_dicts():
    network = nn.ModuleList([Pair(), Pair()])
    assert checkpoint_blocks(network) == 2
    x = torch.randn(3, 5, requires_grad=True)
    once = network[0](x, scale=2)
    network[1](**once)["x"].sum().backward()
    expected = 2 * 2 * torch.ones(3, 5) @ network[1].linear.weight @ network[0].linear.weight
    assert_close(x.grad, expected)


def test_checkpoint_blocks__refuses_an_input_changed_in_place():
    network = nn.Sequential(nn.Linear(5, 5), ChangesItsInput(), ChangesItsInput())
    checkpoint_blocks(network)
    loss = network(torch.randn(3, 5)).sum()
    with pytest.raises((BackboneError, RuntimeError), match=r"in ?place"):
        loss.backward()


def small_extractor():
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 1, 1])
    return create_feature_extractor(network, ["layer1", "layer2"])


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."),
    reason="this version updates batch norms twice when it compiles a checkpointed block",
)
@pytest.mark.parametrize(
    "make",
    [lambda: timm.create_model("test_resnet", features_only=True), small_extractor],
    ids=["timm", "torchvision"],
)
def test_checkpoint_blocks__under_compile(make):
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = make().double().train()
    network = copy.deepcopy(plain)
    assert checkpoint_blocks(network) > 1
    image = torch.randn(2, 3, 35, 43, dtype=torch.float64)
    expected = step(plain, image)
    loss, *named = step(torch.compile(network, backend="aot_eager"), image)
    found = [{n.replace("_orig_mod.", ""): t for n, t in tensors.items()} for tensors in named]
    assert_close((loss, *found), expected, rtol=1e-11, atol=1e-11)
