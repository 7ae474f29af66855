"""Train or evaluate a detector by Hydra's command line: sweeps, and jobs for SLURM.

    python -m detrex.cli.hydra_train config_file=CONFIG num_gpus=8 +train.max_iter=100
    python -m detrex.cli.hydra_train -m config_file=CONFIG auto_output_dir=true +optimizer.lr=1,2
    python -m detrex.cli.hydra_train config_file=CONFIG num_machines=2 num_gpus=8 +slurm=research

In a checkout `tools/hydra_train_net.py` is the same program. Its arguments are those of
configs/hydra/train_args.yaml; what has a `+` before it changes the detector's config. A SLURM job
needs the package submitit; before its machines are taken away it writes a checkpoint, and it
resumes when it is queued again.
"""

import os
import re
import signal
import sys
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detrex.config.listing import configs_root
from detrex.errors import ConfigError, DetrexError, run_tool
from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

_FLAGS = ("resume", "eval_only")
_OPTIONS = ("config_file", "num_gpus", "num_machines", "machine_rank", "dist_url")
_FIRST_PORT, _PORTS = 20000, 20000
# Quotes, interpolations and the like would be read by the config, and not by the file system.
_NO_NAME = re.compile(r"[^\w.,=+:()\[\]-]")
_LONGEST, _SHORT = 200, 50


class Trainer:
    """A run as a SLURM job, called once on each machine.

    Args:
        args: plain values of the program's arguments, with ``opts`` and ``slurm``.
    """

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args

    def __call__(self) -> None:
        """Join the job's other machines, and run."""
        import submitit

        job = submitit.JobEnvironment()
        slurm = self.args["slurm"]
        url = get_dist_url(slurm["ddp_comm_mode"], slurm["share_root"], job.hostnames, job.job_id)
        with _queued_again():
            run_words(argument_list({**self.args, "machine_rank": job.node, "dist_url": url}))

    def checkpoint(self) -> Any:
        """Give what is submitted when the job is taken off its machines: the same run, resumed."""
        import submitit

        return submitit.helpers.DelayedSubmission(Trainer({**self.args, "resume": True}))


@contextmanager
def _queued_again() -> Iterator[None]:
    """Let a run write a checkpoint when submitit is told of its end, and submitit then go on."""
    from detrex.engine.signals import REQUEUE

    signum = signal.Signals[os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "SIGUSR2")]
    requeue = signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    except SystemExit as end:
        if end.code == REQUEUE:
            signal.signal(signum, requeue)
            signal.raise_signal(signum)
        raise
    finally:
        signal.signal(signum, requeue)


def argument_list(args: dict[str, Any]) -> list[str]:
    """Write arguments as ``tools/train_net.py`` takes them.

    Args:
        args: names of the program's arguments to values; ``opts`` are overrides.

    Returns:
        Words of a command line.
    """
    words = [f"--{name.replace('_', '-')}" for name in _FLAGS if args[name]]
    for name in _OPTIONS:
        words += [f"--{name.replace('_', '-')}", str(args[name])]
    for package in args["trust"]:
        words += ["--trust", str(package)]
    return [*words, *args["opts"]]


def config_overrides(overrides: Iterable[str]) -> list[str]:
    """Choose the overrides that are for the detector's config.

    Args:
        overrides: as Hydra got them.

    Returns:
        Those with a ``+``, without it; ``++key=value``, which adds a key, keeps one.
    """
    chosen = [text.removeprefix("+") for text in overrides if text.startswith("+")]
    return [text for text in chosen if not text.startswith(("slurm=", "slurm."))]


def check_words(words: Iterable[str]) -> None:
    """Refuse words of the command line that would make Hydra itself call what they name.

    Hydra calls its launcher, sweeper, callbacks and loggers by the names in its config.

    Args:
        words: of the command line.

    Raises:
        ConfigError: one names a class or function that text may not, Hydra's loggers, or another
            folder of configs than the program's.
    """
    for word in words:
        if word.startswith(("--conf", "-cd", "-cp", "-cn")):
            raise ConfigError(f"{word[:100]} is refused: the program has its own config for Hydra.")
        key = word.partition("=")[0]
        if word.startswith("-") or not re.search(r"(^|[+~@:\s])hydra\b", key):
            continue
        if "@" in key or re.search(r"logging|searchpath|callbacks", key):
            raise ConfigError(f"{word[:100]!r} is refused: it would make Hydra run what it names.")
        check_hydra_override(word)


def check_hydra_override(text: str) -> None:
    """Check an override of Hydra's own config; see `check_words`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from detrex.config.trust import check_named

    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError) as error:
        raise ConfigError(f"{text[:100]!r} is not an override: {str(error)[:150]}.") from error
    if override.is_sweep_override():
        raise ConfigError(f"{text[:100]!r} is refused: Hydra's own options have one value.")
    if str(override.key_or_group) == "hydra":
        raise ConfigError(f"{text[:100]!r} is refused: set single options of Hydra's.")
    check_named(override.value(), str(override.key_or_group))


def output_folder(config_file: str, opts: Sequence[str]) -> str:
    """Name a folder after a config and what is changed of it.

    Args:
        config_file: path of the config.
        opts: overrides.
    """
    changed = ",".join(sorted(opts)) or "default"
    folder = _NO_NAME.sub("_", changed.replace(" ", ""))
    if len(folder.encode()) > _LONGEST or folder != changed.replace("/", "_").replace(" ", ""):
        # What was changed or cut may have told two jobs apart.
        folder = f"{folder[:_SHORT]}-{zlib.crc32(changed.encode()):08x}"
    return f"./output/{Path(config_file).stem}/{folder}"


def get_dist_url(
    ddp_comm_mode: str, share_root: str | None, hosts: Sequence[str], job_id: str
) -> str:
    """Tell where the machines of a job meet.

    Args:
        ddp_comm_mode: ``"tcp"`` or ``"file"``.
        share_root: a folder that all machines see, for ``"file"``.
        hosts: names of the machines, equal on all of them.
        job_id: the job's, equal on all machines.

    Raises:
        ConfigError: another mode, or no folder.
    """
    if ddp_comm_mode == "tcp":
        number = int("".join(filter(str.isdigit, job_id)) or 0)
        return f"tcp://{hosts[0]}:{_FIRST_PORT + number % _PORTS}"
    if ddp_comm_mode != "file" or not share_root:
        raise ConfigError(
            f"slurm.ddp_comm_mode={ddp_comm_mode} with slurm.share_root={share_root}: choose tcp, "
            "or file with a folder that all machines see."
        )
    return f"file://{Path(share_root).resolve() / f'detrex_{job_id}'}"


def submit(args: dict[str, Any]) -> str:
    """Submit a run to SLURM.

    Args:
        args: as for `Trainer`.

    Returns:
        The job's id.

    Raises:
        ConfigError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("+slurm needs the package submitit: pip install submitit.") from error
    slurm = args["slurm"]
    executor = submitit.AutoExecutor(folder=str(Path("output") / "slurm" / uuid.uuid4().hex[:8]))
    options = {f"slurm_{key}": slurm[key] for key in ("partition", "comment") if slurm[key]}
    if slurm["mem_gb"]:
        options["mem_gb"] = slurm["mem_gb"]
    executor.update_parameters(
        name=slurm["job_name"],
        nodes=args["num_machines"],
        gpus_per_node=args["num_gpus"],
        tasks_per_node=1,
        cpus_per_task=slurm["cpus_per_task"],
        timeout_min=slurm["timeout_min"],
        **options,
    )
    return executor.submit(Trainer(args)).job_id


def run_words(words: Sequence[str]) -> None:
    """Run a command line of ``tools/train_net.py``.

    Args:
        words: as of `argument_list`.
    """
    from detrex.engine import run

    run(words)


def run_job(args: Any) -> None:
    """Run one job of Hydra's command line, here or as a job of SLURM.

    Args:
        args: the program's arguments, as Hydra composed them.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    opts = config_overrides(HydraConfig.get().overrides.task)
    if args.auto_output_dir:
        opts.append(f"train.output_dir='{output_folder(args.config_file, opts)}'")
    plain = {"slurm": None, **OmegaConf.to_container(args), "opts": opts}  # type: ignore[dict-item]
    try:
        if plain["slurm"] is None:
            run_words(argument_list(plain))
        else:
            print(f"Submitted batch job {submit(plain)}")
    except DetrexError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


def hydra_app() -> None:
    """Let Hydra read the command line, and run its jobs."""
    import hydra

    folder = str(configs_root() / "hydra")
    hydra.main(version_base="1.3", config_path=folder, config_name="train_args")(run_job)()


def main() -> None:
    """Run the program."""
    prepare_threads()  # before torch is imported, which reads them once
    quiet_libraries()
    check_words(sys.argv[1:])
    hydra_app()


if __name__ == "__main__":
    run_tool(main)
