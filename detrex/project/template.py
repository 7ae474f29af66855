"""The text of a project's config."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detrex.errors import printable
from detrex.project.backbones import Choice
from detrex.project.parts import SIGN
from detrex.project.schedule import DROP, MOST_WARMUP, Schedule

DETECTORS = {
    "dino": ("DINO", 'get_config("dino/models/dino_r50.py")'),
    "mask_rcnn": ("Mask R-CNN", 'get_detectron2_config("common/models/mask_rcnn_fpn.py")'),
    "retinanet": ("RetinaNet", 'get_detectron2_config("common/models/retinanet.py")'),
    "fcos": ("FCOS", 'get_detectron2_config("common/models/fcos.py")'),
}
"""Detectors by the name on the command line: what they are called, and where their config is."""

_WIDTH = 96


@dataclass(frozen=True)
class Side:
    """Where the annotations and pictures of training or validation are.

    Attributes:
        json_file: its name in the project's folder, or an absolute path.
        image_root: an absolute path.
    """

    json_file: str
    image_root: Path


def config_text(
    name: str,
    detector: str,
    backbone: Choice,
    schedule: Schedule,
    sides: dict[str, Side],
    classes: Sequence[str],
) -> str:
    """Write a config.

    Args:
        name: of the project.
        detector: a key of `DETECTORS`.
        backbone: the node.
        schedule: the numbers.
        sides: by ``"train"`` and ``"test"``.
        classes: their names in the order of their numbers.

    Returns:
        The text of a Python file.
    """
    title, _ = DETECTORS[detector]
    sections = (
        _head(title, backbone, classes),
        _imports(detector, backbone, schedule),
        _data(name, detector, schedule, sides),
        _model(detector, backbone, schedule, len(classes)),
        _training(detector, backbone, schedule),
    )
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _head(title: str, backbone: Choice, classes: Sequence[str]) -> str:
    shown = ", ".join(f"{number} {printable(text)}" for number, text in enumerate(classes[:100]))
    shown += ", ..." if len(classes) > 100 else ""
    listed = textwrap.fill(f"Classes: {shown}.", _WIDTH)
    # Names are a stranger's words, and this is a program.
    listed = listed.replace("\\", "\\\\").replace('"', '\\"')
    return f'''"""{title} over {backbone.name}, {SIGN}: yours to change.

{listed}

A value can be changed here, or for one run behind the command: `train.max_iter=100`.
"""'''


def _imports(detector: str, backbone: Choice, schedule: Schedule) -> str:
    names = ["get_config", "swap_backbone"]
    if detector != "dino":
        names.insert(1, "get_detectron2_config")
    factor = "from detrex.config.optim import backbone_lr_factor\n" if backbone.weights else ""
    return f"""
from pathlib import Path

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from detrex.config import {", ".join(names)}
from detrex.config.configs.common.common_schedule import multistep_lr_scheduler
{factor}from detrex.modeling.backbone import {backbone.entry.wrapper}

_HERE = Path(__file__).resolve().parent
_SIZE = {schedule.size}  # shorter side of the pictures in pixels, the longer at most _LONGEST
_LONGEST = {schedule.longest}
_ITERATIONS = {schedule.iterations}  # {schedule.epochs} passes over the pictures
"""


def _data(name: str, detector: str, schedule: Schedule, sides: dict[str, Side]) -> str:
    number = _class_count(detector)
    masks = "dataloader.train.mapper.mask_on = True\n" if detector == "mask_rcnn" else ""
    return f"""
# ---------------------------------------------------------------------------- data
dataloader = get_config("common/data/custom.py").dataloader
{_side("train", name, sides["train"], number)}
{_side("test", name, sides["test"], number)}
dataloader.train.dataset.filter_empty = False  # pictures without objects teach, too
{masks}dataloader.train.total_batch_size = {schedule.batch_size}
dataloader.train.num_workers = dataloader.test.num_workers = {schedule.workers}
dataloader.train.mapper.augmentation = [
    L(T.RandomFlip)(),  # take it out where left and right are not alike, as in text
    L(T.ResizeShortestEdge)(
        short_edge_length=[round(share * _SIZE) for share in (0.6, 0.7, 0.8, 0.9, 1.0)],
        max_size=_LONGEST,
        sample_style="choice",
    ),
]
dataloader.train.mapper.augmentation_with_crop = None
dataloader.test.mapper.augmentation = [
    L(T.ResizeShortestEdge)(short_edge_length=_SIZE, max_size=_LONGEST)
]
dataloader.evaluator.output_dir = "${{train.output_dir}}"
"""


def _side(side: str, name: str, where: Side, number: str) -> str:
    path = Path(where.json_file)
    file = _literal(str(path)) if path.is_absolute() else f'str(_HERE / "{path}")'
    return f"""dataloader.{side}.dataset.names.update(
    name={_literal(f"{name}_{side}")},
    json_file={file},
    image_root={_literal(str(where.image_root))},
    num_classes="${{{number}}}",
)"""


def _class_count(detector: str) -> str:
    """The key of a detector's number of classes."""
    return "model.roi_heads.num_classes" if detector == "mask_rcnn" else "model.num_classes"


def _literal(value: object) -> str:
    """Write a value into a program."""
    is_plain = isinstance(value, str) and value.isprintable()
    return json.dumps(value, ensure_ascii=False) if is_plain else repr(value)


def _model(detector: str, backbone: Choice, schedule: Schedule, classes: int) -> str:
    _, source = DETECTORS[detector]
    arguments = backbone.arguments(schedule.freeze_at)
    texts = [f"{key}={_literal(value)}" for key, value in arguments.items()]
    node = f"L({backbone.entry.wrapper})({', '.join(texts)})"
    if len(node) > _WIDTH - 8:
        lines = "".join(f"        {text},\n" for text in texts)
        node = f"L({backbone.entry.wrapper})(\n{lines}    )"
    order = ""
    if detector in ("mask_rcnn", "retinanet"):
        order = 'model.input_format = "RGB"  # as the mappers read pictures; theirs was BGR\n'
    device = 'model.device = "${train.device}"\n' if detector == "dino" else ""
    return f"""
# --------------------------------------------------------------------------- model
model = {source}.model
{order}swap_backbone(
    model,
    {node},
)
{_class_count(detector)} = {classes}
{device}"""


def _training(detector: str, backbone: Choice, schedule: Schedule) -> str:
    decay, norm = (1e-4, 0.1) if detector == "dino" else (0.05, 1.0)
    factor = ""
    if backbone.weights:
        factor = (
            "optimizer.params.lr_factor_func = backbone_lr_factor  # a tenth for the pretrained\n"
        )
    return f"""
# ------------------------------------------------------------------------ training
optimizer = get_config("common/optim.py").AdamW
optimizer.lr = {schedule.learning_rate!r}
optimizer.weight_decay = {decay!r}
{factor}
lr_multiplier = multistep_lr_scheduler(
    values=(1.0, 0.1),
    warmup_steps=min({MOST_WARMUP}, _ITERATIONS // 10),
    num_updates=_ITERATIONS,
    milestones=(int({DROP} * _ITERATIONS),),
)

train = get_config("common/train.py").train
train.output_dir = str(_HERE / "output")
train.max_iter = _ITERATIONS
train.eval_period = train.checkpointer.period = -(-_ITERATIONS // 10)
train.checkpointer.max_to_keep = 3
train.log_period = {max(1, min(20, schedule.iterations // 10))}
train.clip_grad.enabled = True
train.clip_grad.params.max_norm = {norm!r}
# train.amp.update(enabled=True, dtype="bfloat16")  # faster, in half of the memory, on newer cards
# train.model_ema.enabled = True  # average the weights; evaluations take twice as long
"""
