"""The stand-in's config as a file, for programs that take one."""

_CONFIG = """
from tests.reference.stand_in import stand_in_config

cfg = stand_in_config({output!r}, **{options!r})
model, optimizer, lr_multiplier = cfg.model, cfg.optimizer, cfg.lr_multiplier
dataloader, train = cfg.dataloader, cfg.train
del cfg
"""


def stand_in_file(folder, output="", **options) -> str:
    """Write the config into a folder, and give its path.

    Args:
        folder: where to.
        output: ``train.output_dir``, below the folder.
        options: of `tests.reference.stand_in.stand_in_config`.
    """
    path = folder / "config.py"
    path.write_text(_CONFIG.format(output=str(folder / output), options=options))
    return str(path)
