import platform
from pathlib import Path

import pytest
import torch

from detrex.benchmark import environment as module
from detrex.benchmark.environment import busy_warning, environment, installed


def test_environment__tells_versions_and_no_name_of_the_machine():
    found = environment(3, quick=True)
    assert torch.__version__.startswith(found["torch"])
    assert (found["threads"], found["length"]) == ("3", "short")
    text = " ".join(found.values())
    assert platform.node() not in text.split()
    assert str(Path.home()) not in text
    assert "\n" not in text


def test_installed__is_empty_without_the_package():
    assert installed("torch")
    assert installed("no-such-package-of-anyone") == ""


def test_busy_share__counts_all_but_idle_and_waiting(monkeypatch):
    times = iter([[100, 0, 0, 100, 0, 0, 0, 0], [130, 0, 10, 140, 15, 0, 0, 5]])
    monkeypatch.setattr(module, "_processor_times", lambda: next(times))
    assert module.busy_share(0) == pytest.approx(0.45)


def test_busy_share__is_unknown_without_proc(monkeypatch):
    monkeypatch.setattr(module, "_processor_times", list)
    assert module.busy_share(0) is None


@pytest.mark.parametrize(
    ("described", "warns"), [({"busy": "45 %"}, True), ({"busy": "2 %"}, False), ({}, False)]
)
def test_busy_warning__says_that_figures_are_rough(described, warns):
    assert ("use 45% of this machine's cores" in busy_warning(described)) is warns


def test_processor__without_proc(monkeypatch):
    monkeypatch.setattr(module, "_cpu_info", dict)
    assert module.processor() == (platform.processor() or platform.machine())
    assert module.processor_flags() == []
