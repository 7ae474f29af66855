"""The stand-in's config as a file, for programs that take one."""

_CONFIG = """
from tests.reference.stand_in import stand_in_config
cfg = stand_in_config({folder!r})
train, model, optimizer = cfg.train, cfg.model, cfg.optimizer
dataloader = cfg.dataloader
"""


def stand_in_file(folder) -> str:
    """Write the config into a folder, and give its path."""
    path = folder / "config.py"
    path.write_text(_CONFIG.format(folder=str(folder)))
    return str(path)
