"""Rules that hold for every file of the tree, whoever adds it."""

import ast
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
    binary = {
        ".png",
        ".jpg",
        ".jpeg",
        ".npz",
        ".pth",
        ".pkl",
        ".safetensors",
        ".gif",
        ".webp",
        ".ico",
        ".gz",
    }
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
