"""Draw what a config feeds to training: the annotations as they are, or after all augmentation.

python tools/visualize_data.py --source annotation --config-file CONFIG --output-dir output/look
python tools/visualize_data.py --source dataloader --config-file CONFIG --output-dir output/look
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from detectron2.config import instantiate
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb, read_image
from omegaconf import DictConfig
from PIL import Image
from tqdm import tqdm

from detrex.config import load_config, try_get_key
from detrex.engine.overrides import apply_overrides
from detrex.utils.drawing import draw_instances, draw_record

Picture = tuple[str, np.ndarray]


def annotated_pictures(cfg: DictConfig, metadata: Metadata) -> Iterator[Picture]:
    """Yield file name and picture of every record in the training set, as annotated."""
    for record in instantiate(cfg.dataloader.train.dataset):
        image_rgb = read_image(record["file_name"], format="RGB")
        yield Path(record["file_name"]).name, draw_record(image_rgb, record, metadata)


def augmented_pictures(cfg: DictConfig, metadata: Metadata) -> Iterator[Picture]:
    """Yield file name and picture of the samples that the training loader gives, without end."""
    mapper = cfg.dataloader.train.mapper
    image_format = try_get_key(mapper, "img_format", "image_format", default="RGB")
    for batch in instantiate(cfg.dataloader.train):
        for sample in batch:
            image_rgb = convert_image_to_rgb(sample["image"].permute(1, 2, 0), image_format)
            yield (
                f"{sample['image_id']}.jpg",
                draw_instances(image_rgb, sample["instances"], metadata),
            )


SOURCES = {"annotation": annotated_pictures, "dataloader": augmented_pictures}


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", choices=SOURCES, required=True, help="draw annotations, or loaded samples"
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a lazy config")
    parser.add_argument(
        "--output-dir", "--output_dir", default="./", metavar="DIR", help="where pictures go (./)"
    )
    parser.add_argument(
        "-n",
        "--num-images",
        type=int,
        help="stop after so many pictures (as many as the dataset has)",
    )
    parser.add_argument(
        "--show", action="store_true", help="open a viewer instead of writing files"
    )
    parser.add_argument("opts", nargs="*", default=[], help="overrides such as train.device=cpu")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures and write them, or show them one by one."""
    args = argument_parser().parse_intermixed_args(arguments)
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    names = instantiate(cfg.dataloader.train.dataset.names)
    metadata = MetadataCatalog.get(names if isinstance(names, str) else names[0])
    count = args.num_images or len(instantiate(cfg.dataloader.train.dataset))
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = itertools.islice(SOURCES[args.source](cfg, metadata), count)
    for number, (name, picture) in enumerate(tqdm(pictures, total=count, unit="picture")):
        if args.show:
            Image.fromarray(picture).show(title=name)
        elif args.source == "dataloader":
            Image.fromarray(picture).save(folder / f"{number:05d}_{name}")
        else:
            Image.fromarray(picture).save(folder / name)


if __name__ == "__main__":
    main()
