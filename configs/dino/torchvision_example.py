"""DINO-4scale over any network of torchvision: an example, here its ResNet-50.

detector: DINO, 4 scales
backbone: ResNet-50 of torchvision; any other by its name
paper:    DINO, arXiv 2203.03605; torchvision
command:  detrex train dino/torchvision_example.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   the original detrex published none; not trained here

The outputs are chosen by stride and named res3, res4 and res5; `return_nodes` would choose them by
node, of which `TorchvisionBackbone.get_graph_node_names` lists all.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TorchvisionBackbone

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone = L(TorchvisionBackbone)(
    model_name="resnet50", out_strides=(8, 16, 32), pretrained=True
)

# The backbone brings its own weights.
train.init_checkpoint = ""
train.output_dir = "./output/dino_torchvision_example"
