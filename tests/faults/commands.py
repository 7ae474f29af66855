"""Command lines with mistakes in them, in surroundings that are not as they should be."""

import functools
import importlib
import os
import pwd
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from detrex.data.demo.shapes import write_shapes_dataset
from tests.faults.tiny_run import CONFIG, fork_ranks
from tests.faults.trials import ROOT, Trial, shared_folder

KIND = "commands"
CONFIG_WORD = "CONFIG"  # stands for the config that `prepare` wrote, DATA for its data
TRAIN = ("train", "--config-file", CONFIG_WORD, "train.max_iter=1")
PROGRAMS = {
    "detrex": ("detrex.cli.main", "main"),
    "train": ("detrex.engine", "run"),
    "analyze": ("tools.analyze_model", "main"),
    "benchmark": ("tools.benchmark", "main"),
    "visualize": ("tools.visualize_data", "main"),
    "results": ("tools.visualize_json_results", "main"),
}
LONG = "n" * 300
ODD = ("", " ", "/", ".", "no/such/file.py", LONG, "a\udcffb.py", "ü/ü.py", "/dev/null", "-", "{}")

BROKEN: tuple[tuple[str, ...], ...] = (
    ("detrex", "chek", CONFIG_WORD),
    ("detrex", "check"),
    *(("detrex", "check", name) for name in ODD),
    ("detrex", "check", CONFIG_WORD, "--size", "0x0"),
    ("detrex", "check", CONFIG_WORD, "--size", "-5x7"),
    ("detrex", "check", CONFIG_WORD, "--size", "99999999999x7"),
    ("detrex", "check", CONFIG_WORD, "--size", "640"),
    ("detrex", "backbones", "show", "resnet5O"),
    ("detrex", "backbones", "show", ""),
    ("detrex", "backbones", "show", LONG),
    ("detrex", "backbones", "nodes", "no_such_network"),
    ("detrex", "backbones", "--strides", "8,x"),
    ("detrex", "backbones", "--max-params", "many"),
    ("detrex", "backbones", "--limit", "-3"),
    ("detrex", "export", CONFIG_WORD),
    ("detrex", "export", CONFIG_WORD, "--output", "/dev/null/x.onnx"),
    ("detrex", "export", CONFIG_WORD, "--output", "x.onnx", "--format", "tflite"),
    ("detrex", "export", CONFIG_WORD, "--output", "x.onnx", "--weights", "no.pth"),
    ("detrex", "export", CONFIG_WORD, "--output", "x.onnx", "--size", "axb"),
    ("detrex", "export", CONFIG_WORD, "--output", f"{LONG}.onnx"),
    ("detrex", "export", CONFIG_WORD, "--output", "x.onnx", "--weights", f"{LONG}.pth"),
    ("train",),
    *(("train", "--config-file", name) for name in ODD),
    (*TRAIN[:-1], "--num-gpus=0"),
    (*TRAIN[:-1], "--num-gpus=-2"),
    (*TRAIN[:-1], "--num-gpus=two"),
    (*TRAIN[:-1], "--num-machines=2"),
    (*TRAIN[:-1], "--num-machines=2", "--machine-rank=5", "--dist-url=tcp://127.0.0.1:1"),
    (*TRAIN[:-1], "--num-gpus=2", "--dist-url=nowhere"),
    (*TRAIN[:-1], "--num-gpus=2", "--dist-url=tcp://127.0.0.1:99999999"),
    (*TRAIN[:-1], "--eval-only", "train.init_checkpoint=no.pth"),
    *(
        (*TRAIN, override)
        for override in (
            *(
                "train.max_iter=abc",
                "train.max_iter=-1",
                "train.max_iter=null",
                "train.max_iter=1e9x",
            ),
            *(
                "train.max_itre=3",
                "max_iter",
                "=3",
                "train=3",
                "train.=3",
                ".train=3",
                "train..x=3",
            ),
            *("train.output_dir=/dev/null/x", f"train.output_dir={LONG}", "train.device=cuda:7"),
            *("train.device=tpu", "train.device=", "train.device=3", "train.seed=x"),
            *("train.seed=99999999999999999999", "train.checkpointer.period=0"),
            *("train.checkpointer.period=x", "train.checkpointer.max_to_keep=-1"),
            *("train.checkpointer.max_to_keep=0", "train.log_period=0", "train.log_period=-1"),
            *("train.eval_period=x", "train.accumulate_steps=0", "train.amp.dtype=int8"),
            *("train.amp.enabled=perhaps", "train.init_checkpoint=.", "train.init_checkpoint=[1]"),
            *("train.init_checkpoint=ftp://x/y.pth", "train.clip_grad.params.max_norm=x"),
            *("train.model_ema.decay=2", "train.model_ema.device=moon", "optimizer.lr=x"),
            *("optimizer.lr=-1", "optimizer.lr=null", "optimizer=null", "model=null", "model=3"),
            *("model.num_classes=0", "model.num_classes=-1", "model.num_classes=x"),
            *("model.embed_dim=0", "model.embed_dim=15", f"train.init_checkpoint={LONG}.pth"),
            *("model._target_=os.system", "model._target_=", "model._target_=3", "lr_multiplier=2"),
            *("dataloader=null", "dataloader.train=null", "dataloader.train.total_batch_size=0"),
            *("dataloader.train.total_batch_size=-2", "dataloader.train.total_batch_size=x"),
            *("dataloader.train.num_workers=-1", "dataloader.train.num_workers=x"),
            *(
                f"dataloader.folder={LONG}",
                "dataloader.folder=no/such/folder",
                "dataloader.folder=null",
                "dataloader.folder=3",
            ),
            *("dataloader.evaluator=3", "dataloader.on_bad_image=ignore", "dataloader.test=7"),
            *(
                "train.wandb.enabled=x",
                "train.ddp=3",
                "train.inference.dtype=int8",
                "train.ddp.x=1",
            ),
            *(
                "train.x=${train.x}",
                "train.x=${no.such}",
                "+train.y=${oc.env:NO_SUCH}",
                "a={",
                "a=[",
            ),
            *("+train.y=${train.y}", "+train.y=!!python/object:os.system", "~model"),
            "train.max_iter=[1,2]",
        )
    ),
    ("analyze", "--config-file", CONFIG_WORD, "--tasks", "nothing"),
    ("analyze", "--config-file", "no.py", "--tasks", "flop"),
    ("analyze", "--config-file", CONFIG_WORD, "--tasks", "flop", "--input-size", "0", "0"),
    ("analyze", "--config-file", CONFIG_WORD, "--tasks", "flop", "--input-size", "-1", "8"),
    ("benchmark", "--config-file", CONFIG_WORD, "--task", "nothing"),
    ("benchmark", "--config-file", CONFIG_WORD, "--task", "train", "-n", "0"),
    (
        "visualize",
        "--config-file",
        CONFIG_WORD,
        "--source",
        "annotation",
        "--output-dir",
        "/dev/null/x",
    ),
    ("visualize", "--config-file", "no.py", "--source", "annotation", "--output-dir", "x"),
    ("results", "--input", "no.json", "--output", "x", "--dataset", "none"),
    ("results", "--input", LONG, "--output", "x", "--config-file", CONFIG_WORD),
    ("results", "--input", "/dev/null", "--output", "x", "--config-file", CONFIG_WORD),
)


def _no_folder() -> None:
    """Remove the folder that the program is called in."""
    folder = Path("gone")
    folder.mkdir()
    os.chdir(folder)
    os.rmdir(os.getcwd())


def _full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def _no_home() -> None:
    """As in a container for a user whom the system does not know."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    pwd.getpwuid = unknown  # type: ignore[assignment]
    for name in ("HOME", "DETREX_CACHE", "XDG_CACHE_HOME", "USER", "LOGNAME"):
        os.environ.pop(name, None)


def _cache_is_a_file() -> None:
    Path("file").write_text("x")
    os.environ["DETREX_CACHE"] = str(Path("file").absolute())


def _ascii() -> None:
    os.environ |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    sys.stdout.reconfigure(encoding="ascii")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")  # type: ignore[union-attr]


def _closed(number: int) -> None:
    """Close a standard stream, as a shell's `>&-` does; the interpreter has none then."""
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def _variable(text: str) -> Callable[[], None]:
    return lambda: os.environ.update([text.split("=", 1)])


def _torchrun(**wrong: str) -> Callable[[], None]:
    right = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    return lambda: os.environ.update({**right, **address, **wrong})


def _small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


CHECK = ("detrex", "check", CONFIG_WORD)
SHOW = ("detrex", "backbones", "show", "resnet18")
LIST = ("detrex", "backbones", "--limit", "5")
FETCH = (*TRAIN, "train.init_checkpoint=http://127.0.0.1:9/x.pth")
VARIABLES = (
    ("DETREX_DEFORMABLE_ATTENTION_KERNEL=fastest", TRAIN, "sentence"),
    ("DETREX_MAX_PIXELS=many", TRAIN, "sentence"),
    ("DETREX_MAX_PIXELS=-1", TRAIN, "sentence"),
    ("DETREX_CACHE=/dev/null/x", SHOW, "right"),
    ("DETREX_CACHE=/dev/null/x", TRAIN, "right"),
    (f"DETREX_CACHE=/{LONG}", SHOW, "right"),
    ("DETREX_DOWNLOAD_TIMEOUT=soon", FETCH, "sentence"),
    ("DETREX_DOWNLOAD_DEADLINE=-1", FETCH, "sentence"),
    ("DETREX_DOWNLOAD_MAX_BYTES=nan", FETCH, "sentence"),
    ("DETREX_CACHE=/dev/null/x", FETCH, "sentence"),
    ("TMPDIR=/no/such/folder", TRAIN, "right"),
    ("HOME=/dev/null", TRAIN, "right"),
    ("http_proxy=http://127.0.0.1:9", FETCH, "sentence"),
)
RANKS = (
    "RANK=x",
    "WORLD_SIZE=0",
    "LOCAL_RANK=7",
    "LOCAL_WORLD_SIZE=",
    "MASTER_PORT=high",
    "RANK=3",
)
SURROUNDINGS: tuple[tuple[str, Callable[[], None], tuple[str, ...], str], ...] = (
    ("full-stdout", lambda: _full(1), LIST, "sentence"),
    ("full-stdout", lambda: _full(1), CHECK, "sentence"),
    ("full-stdout", lambda: _full(1), SHOW, "sentence"),
    ("no-home", _no_home, LIST, "right"),
    ("no-home", _no_home, SHOW, "right"),
    ("no-home", _no_home, CHECK, "right"),
    ("no-home", _no_home, FETCH, "sentence"),
    ("no-home", _no_home, TRAIN, "right"),
    ("cache-is-a-file", _cache_is_a_file, SHOW, "right"),
    ("cache-is-a-file", _cache_is_a_file, TRAIN, "right"),
    ("ascii", _ascii, LIST, "right"),
    ("ascii", _ascii, CHECK, "right"),
    ("ascii", _ascii, TRAIN, "right"),
    ("no-folder", _no_folder, LIST, "right"),
    ("no-folder", _no_folder, CHECK, "either"),
    ("no-folder", _no_folder, TRAIN, "sentence"),
    ("closed-stdin", lambda: _closed(0), LIST, "right"),
    ("closed-stdout", lambda: _closed(1), LIST, "right"),
    ("closed-stdout", lambda: _closed(1), CHECK, "right"),
    *((text, _variable(text), words, how) for text, words, how in VARIABLES),
    *(
        (f"torchrun {text}", _torchrun(**dict([text.split("=")])), TRAIN, "sentence")
        for text in RANKS
    ),
    ("small-files", _small_files, TRAIN, "sentence"),
    ("small-files", _small_files, LIST, "right"),
)


def prepare() -> None:
    """Write the data and the config."""
    for seed, part in enumerate(("train", "val")):
        write_shapes_dataset(Path(part), 2, image_size=(64, 64), seed=seed, max_objects=2)
    Path("config.py").write_text(CONFIG.format(folder=Path.cwd(), steps=1))


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give command lines, in an order that depends on the seed; two mistakes at once at the end."""
    rng = random.Random(seed)
    plain = [(_name("", words), words, _nothing, "sentence") for words in BROKEN]
    plain += [
        (_name(name.replace(LONG, "n*300"), words), words, f, how)
        for name, f, words, how in SURROUNDINGS
    ]
    rng.shuffle(plain)
    overrides = [words[-1] for words in BROKEN if words[:4] == TRAIN]
    while len(plain) < count:
        words = (*TRAIN, *rng.sample(overrides, 2))
        plain.append((f"{len(plain)} {_name('', words)}", words, _nothing, "sentence"))
    for name, words, surround, expected in plain[:count]:
        run = functools.partial(_run, words, surround)
        yield Trial(KIND, name, run, expected, seconds=90)


def _name(surroundings: str, words: tuple[str, ...]) -> str:
    shown = " ".join(word.replace(LONG, "n*300") or "''" for word in words)
    return f"{surroundings} {shown}".strip().encode(errors="backslashreplace").decode()


def _nothing() -> None:
    """Leave the surroundings as they are."""


def _run(words: tuple[str, ...], surround: Callable[[], None]) -> object:
    module, name = PROGRAMS[words[0]]
    config = str(shared_folder(KIND) / "config.py")
    argv = [config if word == CONFIG_WORD else word for word in words[1:]]
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    main = getattr(importlib.import_module(module), name)
    fork_ranks()
    sys.argv = [words[0], *argv]
    surround()
    return main(argv)
