"""DINO-4scale over any network of torchvision: an example, here its ResNet-50.

paper:    DINO, arXiv 2203.03605; torchvision
command:  python tools/train_net.py --config-file configs/dino/torchvision_example.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   the original detrex published none; not trained here

`TorchvisionBackbone.get_graph_node_names` lists the nodes that can be returned.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from detrex.modeling.backbone import TorchvisionBackbone

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone = L(TorchvisionBackbone)(
    model_name="resnet50",
    pretrained=True,
    return_nodes={"layer2": "res3", "layer3": "res4", "layer4": "res5"},
)
model.neck.input_shapes = {
    "res3": ShapeSpec(channels=512),
    "res4": ShapeSpec(channels=1024),
    "res5": ShapeSpec(channels=2048),
}
model.neck.in_features = ["res3", "res4", "res5"]

# The backbone brings its own weights.
train.init_checkpoint = ""
train.output_dir = "./output/dino_torchvision_example"
