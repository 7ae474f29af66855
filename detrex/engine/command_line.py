"""The command line of ``tools/train_net.py``: arguments to a run.

argv -> argument_parser -> load_run_config (in the parent: mistakes end the run before it starts)
-> launch -> main (in each process) -> do_train or evaluate_only
"""

import argparse
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from detrex.checkpoint.download import without_secrets
from detrex.config import load_config, resolve_pixel_statistics, try_get_key
from detrex.config.leftovers import drop_leftovers
from detrex.config.validation import misspelt_keys
from detrex.engine.launch import launch
from detrex.engine.overrides import apply_overrides
from detrex.engine.preflight import check_config
from detrex.engine.run_folder.identity import config_file
from detrex.engine.run_folder.lock import locked_together
from detrex.engine.signals import INTERRUPTED, StoppedBySignal
from detrex.engine.train import apply_fast_dev_run, do_train, evaluate_only
from detrex.errors import ConfigError, DetrexError, DetrexWarning, not_replaced
from detrex.files import unfinished_name, write_atomically, writing
from detrex.options import add_trust_option
from detrex.quiet import IN_FULL, fits_terminal
from detrex.utils.dist import exchange

logger = logging.getLogger(__name__)

_EPILOG = """
examples:
  one process        train_net.py --config-file configs/dino/dino_r50_4scale_12ep.py
  eight GPUs         train_net.py --config-file CONFIG --num-gpus 8
  two CPU processes  train_net.py --config-file CONFIG --num-gpus 2 train.device=cpu
  torchrun           torchrun --nproc-per-node 8 tools/train_net.py --config-file CONFIG
  two machines       train_net.py --config-file CONFIG --num-gpus 8 --num-machines 2
                         --machine-rank 0 --dist-url tcp://10.0.0.1:29500
  continue           train_net.py --config-file CONFIG --resume
  evaluate           train_net.py --config-file CONFIG --eval-only train.init_checkpoint=model.pth
  change the config  train_net.py --config-file CONFIG train.max_iter=100 train.device=cpu

A key=value whose key the config does not have is refused as a misspelling; +key=value adds it.
"""


def argument_parser() -> argparse.ArgumentParser:
    """Build the parser: detectron2's options, and ``key=value`` overrides after them.

    Returns:
        A parser of ``--config-file --resume --eval-only --num-gpus --num-machines --machine-rank
        --dist-url --trust`` and ``opts``. ``--dist-url`` finds a free port by default.
    """
    parser = default_argument_parser(epilog=_EPILOG)
    add_trust_option(parser)
    parser.set_defaults(dist_url="auto")
    return parser


def run(argv: Sequence[str] | None = None) -> Any:
    """Run a command line from end to end.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        What :func:`main` returned; None where it ran in processes of its own.

    Raises:
        SystemExit: status 1 with a message of one sentence, for a mistake that the user can mend;
            status 2 for arguments that do not parse; 75 where SIGTERM or SIGUSR1 stopped a run that
            `--resume` continues, and 130 where SIGINT did.
    """
    args = argument_parser().parse_args(argv)
    with exit_by_sentence():
        return run_parsed(args)


def run_parsed(
    args: argparse.Namespace, body: Callable[[argparse.Namespace], Any] | None = None
) -> Any:
    """Run in as many processes as asked.

    Args:
        args: as of :func:`argument_parser`.
        body: what each process calls with them, a function at the top level of a module; by default
            :func:`main`.

    Returns:
        What it returned; None where it ran in processes of its own.

    Raises:
        DetrexError: for every mistake that the user can mend.
        StoppedBySignal: see `detrex.engine.signals`; so `KeyboardInterrupt`.
    """
    cfg = load_run_config(args)
    return launch(
        body or main,
        args.num_gpus,
        args.num_machines,
        args.machine_rank,
        args.dist_url,
        (args,),
        timedelta(seconds=float(cfg.train.timeouts.collective)),
        device=str(cfg.train.device),
    )


@contextmanager
def exit_by_sentence() -> Iterator[None]:
    """End the program with a sentence and a status where a block ends with an error or a signal.

    Raises:
        SystemExit: see `run`.
    """
    try:
        with telling_of_signals():
            yield
    except DetrexError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


@contextmanager
def telling_of_signals() -> Iterator[None]:
    """Say in a sentence that a signal ended a block.

    Raises:
        SystemExit: status 75 after SIGTERM or SIGUSR1, 130 after SIGINT.
    """
    try:
        with not_replaced():
            yield
    except StoppedBySignal as stop:
        sys.stderr.write(f"detrex: {stop}\n")
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        sys.stderr.write(
            "detrex: Interrupted; --resume continues from the last checkpoint, or from the start "
            "where none was written.\n"
        )
        raise SystemExit(INTERRUPTED) from None


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate in this process.

    Args:
        args: from :func:`argument_parser`; its ``output_dir`` gets the run's folder.

    Returns:
        The metrics of the last evaluation, as :func:`detrex.engine.do_test` gives them.

    Raises:
        DetrexError: for every mistake that the user can mend; see :func:`load_run_config` and
            :func:`detrex.engine.do_train`.
    """
    if not args.eval_only:  # what torchrun starts again goes on; each machine counts for itself
        starts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        args.resume = any(exchange(int(args.resume or starts > 0)))
    cfg = load_run_config(args)
    args.output_dir = str(cfg.train.output_dir)
    if args.eval_only:
        _write_config(start_run(cfg, args), args.output_dir, args)
        return evaluate_only(args, cfg)
    _require_writable(str(cfg.train.output_dir))
    with locked_together(cfg):
        files = start_run(cfg, args)
        return do_train(args, cfg, partial(_write_config, files, args.output_dir, args))


def load_run_config(args: argparse.Namespace) -> DictConfig:
    """Load the config of a command line and check what can be checked without building anything.

    Args:
        args: with ``config_file`` and ``opts``, perhaps ``trust``.

    Returns:
        The config with its overrides, without leftovers, with all parts of ``train``, and with
        ``train.fast_dev_run`` applied.

    Raises:
        ConfigError: the file is missing or fails to load, an override's key does not exist, or
            `detrex.engine.preflight` finds a mistake.
    """
    if not args.config_file:
        raise ConfigError(
            "--config-file is missing: name a config, e.g. configs/dino/dino_r50_4scale_12ep.py."
        )
    trusted = vars(args).get("trust", [])
    cfg = load_config(args.config_file, trusted)
    cfg = drop_leftovers(apply_overrides(cfg, args.opts or [], trusted))
    check_config(cfg, eval_only=args.eval_only, resume=args.resume)
    apply_fast_dev_run(cfg)
    return cfg


def start_run(cfg: DictConfig, args: argparse.Namespace) -> dict[str, bytes]:
    """Make the output directory, set up logging to it, and write down the environment.

    Args:
        cfg: the config; ``train.output_dir`` gets ``log.txt``. ``"auto"`` for statistics of images
            becomes numbers where the detector takes numbers.
        args: the command line, which is logged.

    Returns:
        What `config.yaml` is to hold, by the ending of the file's name; nothing but on the main
        process. A config that is refused later must not replace that of the folder's run.

    Raises:
        ConfigError: the output directory cannot be made or written to.
        RunError: it cannot be written to any more.
    """
    output_dir = str(cfg.train.output_dir)
    _require_writable(output_dir)
    _log_to(output_dir)
    words = without_secrets(str(args))
    ranks = (comm.get_rank(), comm.get_world_size())
    logger.info("Rank %d of %d. Command line: %s", *ranks, words, extra=IN_FULL)
    logger.info("Environment:\n%s", collect_env_info(), extra=IN_FULL)
    log = Path(output_dir, "log.txt")
    logger.info("The log, which has the environment and all parts of the model, too: %s", log)
    resolve_pixel_statistics(cfg)
    files = _config_files(cfg) if comm.is_main_process() else {}
    for remark in misspelt_keys(cfg):
        logger.warning("%s", remark)
    torch.backends.cudnn.benchmark = bool(try_get_key(cfg, "train.cudnn_benchmark", default=False))
    if try_get_key(cfg, "train.fast_dev_run.enabled", default=False):
        logger.info(
            "train.fast_dev_run: %d iterations, an evaluation after every %d.",
            cfg.train.max_iter,
            cfg.train.eval_period,
        )
    return files


def _require_writable(output_dir: str) -> None:
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"train.output_dir={output_dir} cannot be written to ({error.strerror}): choose "
            "another."
        ) from error


def _config_files(cfg: DictConfig) -> dict[str, bytes]:
    """The files that keep a config, by what their names end with.

    One that YAML has no form for goes into a pickle beside the place of the YAML file.
    """
    # In the run's own folder, where the next run removes what a killed one leaves.
    unfinished = unfinished_name(Path(str(cfg.train.output_dir), "config"))
    try:
        with writing(unfinished):
            LazyConfig.save(cfg, str(unfinished))
        made = unfinished.parent.glob(f"{unfinished.name}*")
        return {file.name.removeprefix(unfinished.name): file.read_bytes() for file in made}
    finally:
        for file in unfinished.parent.glob(f"{unfinished.name}*"):
            file.unlink(missing_ok=True)


def _write_config(files: Mapping[str, bytes], folder: str, args: argparse.Namespace) -> None:
    """Write ``config.yaml``, or where an evaluation finds a run, ``config.evaluation.yaml``."""
    if not files:
        return
    file = config_file(folder, not args.resume, args.eval_only)
    for ending, content in files.items():
        place = file.with_name(file.name + ending)
        with writing(place):
            write_atomically(place, methodcaller("write", content))


def _log_to(output_dir: str) -> None:
    """Log to the terminal (in colour if it is one) and to ``log.txt``; other ranks to their own."""
    for name in ("detectron2", "fvcore", "detrex"):
        with writing(Path(output_dir, "log.txt")):
            named = setup_logger(
                output_dir, distributed_rank=comm.get_rank(), name=name, color=sys.stdout.isatty()
            )
        for handler in named.handlers:
            if isinstance(handler, logging.StreamHandler):
                if handler.stream is sys.stdout:
                    handler.addFilter(fits_terminal)
                handler.handleError = partial(_go_without, handler)  # type: ignore[method-assign]


def _go_without(handler: "logging.StreamHandler[Any]", _record: logging.LogRecord) -> None:
    """Let a run go on whose log cannot be written; what it must write says so itself."""
    reason = sys.exc_info()[1]
    warnings.warn(f"{handler.stream.name} gets no more lines: {reason}", DetrexWarning, 2)
    if handler.stream is not sys.stdout:
        with suppress(OSError, ValueError):
            handler.stream.close()
    handler.stream = io.StringIO()
