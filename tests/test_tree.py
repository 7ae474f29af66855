"""Rules that hold for every file of the tree, whoever adds it."""

import ast
import graphlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
MAX_FUNCTION_LINES = 80


def _tracked():
    """Files that git knows or would add; all files where this is no git checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        skipped = {
            ".venv",
            ".venv-lowest",
            ".venv-newest",
            "build",
            "output",
            "_build",
            "__pycache__",
        }
        paths = [p for p in ROOT.rglob("*") if not skipped & set(p.relative_to(ROOT).parts)]
    else:
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


FILES = _tracked()
SOURCES = [path for path in FILES if path.suffix == ".py"]
PACKAGE = [path for path in SOURCES if ROOT / "detrex" in path.parents]


def _violations(files, pattern):
    """Lines of ``files`` that ``pattern`` matches, as ``path:line: text``."""
    regex = re.compile(pattern)
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if regex.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def _texts():
    """Tracked text files; pictures and other binaries left out."""
    binary = {".png", ".jpg", ".jpeg", ".npz", ".pth", ".pkl", ".safetensors", ".gif", ".ico"}
    return [path for path in FILES if path.suffix not in binary]


@pytest.mark.parametrize("suffix", [".py", ".sh"])
def test_file__at_most_400_lines(suffix):
    longer = {
        str(path.relative_to(ROOT)): lines
        for path in FILES
        if path.suffix == suffix
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not longer


def test_function__fits_a_screen():
    """A docstring may be long, what follows it not."""
    longer = []
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (lines := body[-1].end_lineno - body[0].lineno + 1) > MAX_FUNCTION_LINES:
                longer.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not longer


def test_module__has_its_mirror_test():
    missing = []
    for path in PACKAGE:
        relative = path.relative_to(ROOT / "detrex")
        if path.name.startswith("__") or (ROOT / "detrex/config/configs") in path.parents:
            continue
        if not (ROOT / "tests" / relative.parent / f"test_{path.stem}.py").is_file():
            missing.append(f"tests/{relative.parent}/test_{path.stem}.py")
    assert not missing


def test_function__is_annotated():
    bare = []
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            unannotated = [a.arg for a in arguments if a.annotation is None]
            if set(unannotated) - {"self", "cls"} or node.returns is None:
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {unannotated}")
    assert not bare


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a device is moved to by name", r"\.cuda\("),
        (
            "a device literal",
            r"""device\(\s*["']cuda["']\s*\)|\.to\(\s*["']cuda|device\s*=\s*["']cuda""",
        ),
        ("the process is ended", r"(?<![\w.])(?:sys\.|os\._?)?exit\("),
        ("an error is swallowed", r"except\s*:|except\s+(?:Base)?Exception\s*:\s*(?:pass\s*)?$"),
        ("a removed package", r"\b(?:pkg_resources|fairscale)\b"),
        ("a mutable default", r"def .*=\s*(?:\[|\{)"),
        ("work left for later", r"\b(?:TODO|FIXME|XXX)\b"),
    ],
)
def test_package__is_free_of(what, pattern):
    assert not _violations(PACKAGE, pattern), what


def test_package__prints_in_its_command_line_only():
    silent = [path for path in PACKAGE if ROOT / "detrex" / "cli" not in path.parents]
    assert not _violations(silent, r"(?<![\w.])print\(")


def test_text__names_no_machine():
    """No absolute path of somebody's machine, no address of a package index."""
    places = "|".join(("work", "home", "root", "opt", "Users"))
    pattern = rf"(?:^|[^A-Za-z0-9_.~*>}})/])/(?:{places})/|--(?:extra-)?index" + "-url"
    assert not _violations(_texts(), pattern)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_root__has(name):
    assert (ROOT / name).is_file()


def test_config__imports_are_one_way():
    """The package never imports the configs, the tools or the tests."""
    assert not _violations(PACKAGE, r"^\s*(?:from|import) (?:configs|tools|tests|projects)\b")


FLOORS = (
    ("__init__", "errors", "files", "detectors"),
    ("checkpoint", "config", "utils"),
    ("layers", "data"),
    ("modeling",),
    ("catalog", "engine"),
    ("cli",),
    ("__main__",),
)
"""The package from below: what imports goes down, or stays on its floor without a cycle."""


def _modules():
    """Every module of the package by its dotted name."""
    names = {}
    for path in PACKAGE:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[:3] != ("detrex", "config", "configs"):
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(name, path):
    """Pairs of a module and a name from it that a file imports, wherever the import stands."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from ((module, alias.name) for alias in node.names)


def _arrows():
    """For each module the modules of the package that it imports."""
    modules = _modules()
    return {
        name: {
            inner if (inner := f"{module}.{item}") in modules else module
            for module, item in _imports(name, path)
            if module in modules
        }
        - {name}
        for name, path in modules.items()
    }


def _floor(module):
    top = module.split(".")[1] if "." in module else "__init__"
    return next(floor for floor, names in enumerate(FLOORS) if top in names)


def test_imports__go_down():
    upward = [
        f"{name} imports {other}"
        for name, others in _arrows().items()
        for other in others
        if _floor(other) > _floor(name)
    ]
    assert not upward


def test_imports__have_no_cycle():
    """Neither among modules nor among the folders of the package, not even for type checkers."""
    modules = _arrows()
    folders: dict[str, set[str]] = {}
    for name, others in modules.items():
        top = ".".join(name.split(".")[:2])
        tops = {".".join(other.split(".")[:2]) for other in others} - {top}
        folders.setdefault(top, set()).update(tops)
    for graph in (modules, folders):
        tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_imports__take_no_private_names_of_another_module():
    private = [
        f"{name} imports {item} of {module}"
        for name, path in _modules().items()
        for module, item in _imports(name, path)
        if module.startswith("detrex") and item.startswith("_") and not item.startswith("__")
    ]
    assert not private
