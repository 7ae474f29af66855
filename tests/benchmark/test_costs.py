import statistics

import torch

from detrex.benchmark import costs
from detrex.benchmark.candidates import NARROW_RESNET, Candidate
from detrex.benchmark.costs import Rounds, measure_all
from detrex.benchmark.study_files import StudyFiles
from detrex.benchmark.turns import Comparison


def test_measure_all__takes_medians_and_each_network_once(tmp_path, monkeypatch):
    """With a stand-in for the clock; tests/benchmark/test_study.py measures in earnest."""
    asked = []

    def compare(calls, repeats):
        asked.append((list(calls), repeats, torch.get_num_threads()))
        return Comparison({name: [1.0, 0.001 * (1 + i), 0.0] for i, name in enumerate(calls)}, "")

    monkeypatch.setattr(costs, "compare", compare)
    monkeypatch.setattr(costs, "_inference", lambda model, picture: None)
    monkeypatch.setattr(costs, "optimize_for_inference", lambda model: model)
    monkeypatch.setattr(costs, "_batch", lambda cfg: [None] * 8)
    monkeypatch.setattr(costs, "prepare_shapes", lambda folder: folder)
    name = NARROW_RESNET
    threads = torch.get_num_threads()
    rows = measure_all(
        [Candidate(name), Candidate(name, "", "ImageNet")], StudyFiles(tmp_path), Rounds(5, 3, 2)
    )
    assert torch.get_num_threads() == threads
    both = [f"{name}/", f"{name}/optimized"]
    assert asked == [(both, 5, 1), (both, 3, 1), ([name], 2, 1)]
    (row,) = rows
    assert (row.latency_ms, row.optimized_ms, row.large_ms, row.step_ms) == (1.0, 2.0, 1.0, 1.0)
    assert row.latency_ms == 1e3 * statistics.median([1.0, 0.001, 0.0])
