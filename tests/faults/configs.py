"""Configs and overrides that would run code, and such as are broken by hand or at random.

What a YAML file or a command line names must not run: each tries to leave a file behind.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.faults.trials import ROOT, Trial, Wrong

DINO = str(ROOT / "configs/dino/dino_r50_4scale_12ep.py")
TOUCH = "touch ran"
CALLS = (
    *("os.system", "posix.system", "subprocess.getoutput", "builtins.eval", "builtins.exec"),
    *("torch.os.system", "torch.serialization.os.popen", "torch.utils.collect_env.run"),
    *(
        "torch.utils.cpp_extension.os.system",
        "timm.models._hub.os.system",
        "importlib.import_module",
    ),
    *("torch.nn.parallel.distributed.os.system", "torch.hub.load", "torch.load"),
    *("detectron2.config.LazyConfig.load", "detectron2.utils.registry.locate", "runpy.run_path"),
    *("detrex.config.load_config", "detectron2.config.instantiate", "torch.distributed.run.main"),
    *("torch.nn.Module.__class__", "torch.nn.Linear.__init__.__globals__.get", "pydoc.locate"),
)
TAGS = (
    f"!!python/object/apply:os.system ['{TOUCH}']",
    f"!!python/object/new:os.system ['{TOUCH}']",
    "!!python/object/apply:subprocess.check_output [['touch', 'ran']]",
    "!!python/object/apply:eval [\"open('ran', 'w')\"]",
    "!!python/module:os ''",
    "!!python/name:os.system ''",
    "!!python/name:torch.hub.load ''",
    "!!python/object/apply:functools.partial\n  state: [!!python/name:os.system '', [], {}, null]",
    "!!binary aGk=",
    "!!set {a}",
    "!mine 1",
    "!!bool x",
    "!!map 1",
    "!!int x",
)
TEXTS: dict[str, bytes] = {
    "aliases that explode": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 110)
    ),
    "an alias of itself": b"a: &a [*a]",
    "brackets in brackets": b"a: " + b"[" * 10**5,
    "groups in groups": b"{a: " * 3000,
    "1,000,000 values": b"a: [" + b"1," * 10**6 + b"]",
    "an integer of 10,000 digits": b"a: " + b"9" * 10**4,
    "an integer of base 60": b"a: " + b"9:" * 10**4 + b"9",
    "a key twice": b"a: 1\na: 2",
    "a key of nothing": b"~: 1",
    "a list as a key": b"? [1]\n: 2",
    "half of a character": b'a: "\\ud800"',
    "an unfinished reference": b'a: "${"',
    "references in references": b'a: "' + b"${" * 5000 + b'"',
    "a list": b"[1, 2]",
    "a number": b"3",
    "nothing": b"",
    "three megabytes": b"a: " + b"x" * (3 << 20),
    "20,000 keys": b"".join(b"key%d: %d\n" % (i, i) for i in range(20000)),
    "20,000 keys of train": b"train:\n" + b"".join(b"  k%d: 1\n" % i for i in range(20000)),
    "20,000 keywords": b"model:\n  _target_: torch.nn.Linear\n"
    + b"".join(b"  key%d: 1\n" % i for i in range(20000)),
    "2,000 references to nothing": b"".join(b"k%d: ${a%d}\n" % (i, i) for i in range(2000)),
    "a chain of references": b"k0: 1\n"
    + b"".join(b"k%d: ${k%d}\n" % (i + 1, i) for i in range(20000)),
    "references that explode": b"k0: x\n"
    + b"".join(b"k%d: '%s'\n" % (i + 1, b"${k%d}" % i * 10) for i in range(9)),
    "no text": bytes(range(256)),
    "UTF-16": "a: 1".encode("utf-16"),
    "Latin-1": b"a: \xe9",
    "two documents": b"a: 1\n---\nb: 2",
    "a tab": b"a:\n\tb: 1",
    "a pickle": b"\x80\x04\x95\x00",
    "made by oc.create": b"model: '${oc.create:{_target_:os.system,command:touch ran}}'",
    "made by oc.select": b"model: '${oc.select:absent,{_target_:os.system,command:touch ran}}'",
    "proposals in a partial": b"x: !!python/object/apply:functools.partial\n"
    b"  state: [!!python/name:detectron2.data.build.get_detection_dataset_dicts '',"
    b" [[a], true, 0, [a.pkl]], {}, null]",
    "proposals that are unpickled": b"dataloader: {train: {dataset: {proposal_files: [a.pkl]}}}",
}
PROGRAMS: dict[str, bytes] = {
    "a syntax error": b"model = (",
    "an import of itself": b"from .config import model",
    "an import of nothing": b"from .absent import model",
    "a module that is not installed": b"import no_such_module",
    "an exit": b"import sys\nsys.exit(0)",
    "an error": b"raise ValueError('a\\nb' * 10000)",
    "half of a character": b"raise ValueError('\\ud800')",
    "a recursion": b"def f(): f()\nf()",
    "no text": bytes(range(256)),
    "NUL": b"a = 1\0",
    "nothing": b"",
    "another Python": b"print 'hello'",
    "an integer": b"model = train = dataloader = optimizer = lr_multiplier = 3",
}
OVERRIDES = (
    *("model._target_=os.system", "++model._target_='torch.os.system'", "model=os.system"),
    *("+x={_target_:os.system,command:touch ran}", "+x=[[{a:{_target_:os.system}}]]"),
    *("+x='${oc.create:{_target_:os.system}}'", "+x._target_.y=os.system", "+x=" + "[" * 3000),
    *("+x='${oc.select:absent,[{_target_:os.system}]}'", "+x=" + "9" * 6000, "=1", "", "a", "x=1"),
    *(
        "dataloader.train.dataset.proposal_files=[a.pkl]",
        "+dataloader.train.dataset.proposal_files.a=1",
        '+x="${"',
        "~model",
        "a/b@c=d",
        "+x=\udcff",
    ),
    *("train.max_iter=${train.max_iter}", "train=null", "model={}", "train.max_iter=1e400"),
    *("model.transformer._target_=torch.hub.load", "+x=!!python/object:os", "+x=choice(1,2)"),
    "model={_target_:torch.nn.Linear,in_features:{_target_:builtins.eval}}",
)
VALUES = (
    *("null", "true", "-1", "0", ".inf", ".nan", "1e300", "1" + "0" * 30, "''", "x", "'???'"),
    *("${absent}", "${train}", "[]", "{}", "[[]]", "{_target_: os.system, command: touch ran}"),
    *("{_target_: torch.nn.GELU}", "/dev/zero", '"\\0"', "2001-01-01", "{a: {b: [1, 2]}}", "1.5"),
)


def load(words: Sequence[str]) -> None:
    """Load a config as the training program does, and look for what should not have run."""
    from detrex.engine.command_line import argument_parser, load_run_config

    try:
        load_run_config(argument_parser().parse_args(["--config-file", *words]))
    finally:
        if Path("ran").exists():
            raise Wrong("it ran a program")


def load_text(name: str, data: bytes, words: Sequence[str] = ()) -> None:
    """Load a config of this content."""
    Path(name).write_bytes(data)
    load([name, *words])


def load_special(kind: str) -> None:
    """Load what is no regular file."""
    if kind == "a named pipe":
        os.mkfifo("config.yaml")
    elif kind == "a folder":
        os.mkdir("config.yaml")
    elif kind == "a link to itself":
        os.symlink("config.yaml", "config.yaml")
    elif kind == "a device":
        os.symlink("/dev/zero", "config.yaml")
    load(["config.yaml" if kind != "a long name" else "x" * 300 + ".yaml"])


def by_hand() -> Iterator[tuple[str, Any, str]]:
    """Names, what is tried, and how it must end."""
    for call in CALLS:
        text = f"model: {{_target_: {call}, command: {TOUCH}, name: os.system}}".encode()
        yield f"YAML calls {call}", partial(load_text, "config.yaml", text), "sentence"
        word = f"model._target_={call}"
        yield f"an override calls {call}", partial(load, [DINO, word]), "sentence"
    for tag in TAGS:
        text = f"train: {tag}".encode()
        yield f"the tag {tag[:40]!r}", partial(load_text, "config.yaml", text), "sentence"
    for name, data in TEXTS.items():
        yield f"YAML: {name}", partial(load_text, "config.yaml", data), "sentence"
    for name, data in PROGRAMS.items():
        yield f".py: {name}", partial(load_text, "config.py", data), "sentence"
    for word in OVERRIDES:
        yield f"override {word[:60]!a}", partial(load, [DINO, word]), "sentence"
    for kind in ("a named pipe", "a folder", "a link to itself", "a device", "a long name"):
        yield f"file: {kind}", partial(load_special, kind), "sentence"


def prepare() -> None:
    """Write a right YAML config, to be broken."""
    from detectron2.config import LazyConfig

    from detrex.config import load_config

    LazyConfig.save(load_config(DINO), "right.yaml")


def load_broken(seed: str) -> None:
    """Load the right YAML config with something changed in it."""
    from tests.faults.trials import shared_folder

    random = Random(seed)
    data = (shared_folder("configs") / "right.yaml").read_bytes()
    if random.random() < 0.4:
        changed = bytearray(data)
        for _ in range(random.randint(1, 3)):
            start = random.randrange(len(changed))
            end = start + random.choice((1, 1, 20, 500))
            changed[start:end] = random.choice((b"", random.randbytes(2), b":", b"  ", b"[", b"*a"))
        return load_text("config.yaml", bytes(changed))
    root = yaml.compose(data.decode(), Loader=yaml.SafeLoader)
    nodes = list(_nodes(root))
    for _ in range(random.randint(1, 2)):
        node = random.choice(nodes)
        other = yaml.compose(random.choice(VALUES), Loader=yaml.SafeLoader)
        if random.random() < 0.2:
            other = random.choice(nodes)
        vars(node).update(vars(other))
        node.__class__ = type(other)
    return load_text("config.yaml", yaml.serialize(root).encode())


def _nodes(root: Any) -> Iterator[Any]:
    """All values below a node; keys of groups are left as they are."""
    children = root.value if isinstance(root, yaml.CollectionNode) else ()
    for child in children:
        node = child[1] if isinstance(child, tuple) else child
        yield node
        yield from _nodes(node)


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give configs broken by hand, in turns with such as are broken at random."""
    random = Random(seed)
    hand = list(by_hand())
    random.shuffle(hand)
    for number in range(count):
        if number % 4 < 3 and hand:
            name, run, expected = hand.pop()
        else:
            name, expected = f"random {seed}.{number}", "either"
            run = partial(load_broken, name)
        yield Trial("configs", name, run, expected, seconds=60, memory=2 << 30)
