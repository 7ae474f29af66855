import pytest
import torch
from torch import nn

from benchmarks.memory_use import peak_rss, peak_rss_of, saved_bytes


def test_peak_rss__counts_what_was_given_back(tmp_path):
    before = peak_rss()
    block = torch.ones(300_000_000, dtype=torch.uint8)  # more than the tests before this one held
    block = [block, torch.ones(600_000_000, dtype=torch.uint8)]
    del block
    assert peak_rss() >= before
    assert peak_rss() > 900_000_000


def test_peak_rss_of__is_of_the_program_alone():
    held = torch.ones(400_000_000, dtype=torch.uint8)
    small = peak_rss_of("compileall", ["-l", "benchmarks"])
    assert small < 100_000_000 < held.numel()


def test_peak_rss_of__says_what_failed():
    with pytest.raises(RuntimeError, match="no_such_module"):
        peak_rss_of("benchmarks.no_such_module")


def test_saved_bytes__counts_activations_once():
    linear = nn.Linear(5, 7)
    image = torch.randn(3, 5)
    assert saved_bytes(linear, lambda: linear(image)) == image.numel() * 4
    both = nn.Sequential(linear, nn.Tanh())
    assert saved_bytes(both, lambda: both(image)) == (3 * 5 + 3 * 7) * 4
