"""What stands beside the code says what the code does: citation, workflows, hooks, issue forms."""

import re
from pathlib import Path

import pytest
import yaml

import detrex

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()


def _read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _commands(workflow):
    """Lines that the jobs of a workflow run, with the values of a matrix put in."""
    for job in _read(workflow)["jobs"].values():
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [""])
        for step in job["steps"]:
            for target in targets:
                yield step.get("run", "").replace("${{ matrix.target }}", target)


def test_citation__names_this_version_and_licence():
    citation = _read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version"} <= citation.keys()
    assert citation["version"] == detrex.__version__
    assert f'license = "{citation["license"]}"' in PROJECT


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow__runs_what_there_is(workflow):
    commands = [command for command in _commands(workflow) if command]
    made = {target for command in commands for target in re.findall(r"^make (\S+)", command)}
    assert made <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    assert all((ROOT / path).exists() for c in commands for path in re.findall(r"^\.ci/\S+", c))
    assert _read(workflow)["permissions"]["contents"] == "read"


def test_workflow__tests_each_python_of_the_metadata():
    tested = _read(ROOT / ".github/workflows/ci.yml")["jobs"]["all"]["strategy"]["matrix"]["python"]
    assert tested == re.findall(r"Python :: (3\.\d+)", PROJECT)


def test_hooks__are_what_make_check_runs():
    """A hook may leave out the name of the files, which it is given, and check notebooks too."""
    hooks = {
        h["id"]: h["entry"] for h in _read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    }
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)[1]
    checks = re.findall(r"\$\(PY\) -m (.+)", recipe)
    given = [re.sub(r"^\S+python -m | --force-exclude", "", entry) for entry in hooks.values()]
    assert {check.removesuffix(" .") for check in checks} <= set(given)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_form__has_what_its_reader_needs(form):
    content = _read(form)
    assert {"name", "description", "body"} <= content.keys()
    fields = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
