"""Training and evaluation: everything that ``tools/train_net.py`` does, importable.

command_line  command line -> config -> processes
overrides     key=value onto a config
preflight     mistakes of a config that show before anything is built
heads         those of a detector's heads
dry_run       a detector built without data or weights
meta_forward  what such a detector can run, by its kind
launch        one process or many
train         config -> parts -> the run
model_building, checkpoints, run_hooks  the parts
trainer       one optimizer step
evaluation    metrics of a model, and of its EMA
evaluators    what computes them
distributed   devices, DDP, agreement between ranks
fake_card     a run without a GPU that shows what would cross its bus
"""

from detrex.engine.command_line import argument_parser, load_run_config, main, run
from detrex.engine.evaluation import do_test
from detrex.engine.launch import launch
from detrex.engine.model_building import build_model
from detrex.engine.optimizer import build_optimizer
from detrex.engine.overrides import apply_overrides
from detrex.engine.train import do_train, evaluate_only
from detrex.engine.trainer import Trainer

__all__ = [
    "Trainer",
    "apply_overrides",
    "argument_parser",
    "build_model",
    "build_optimizer",
    "do_test",
    "do_train",
    "evaluate_only",
    "launch",
    "load_run_config",
    "main",
    "run",
]
