import pytest
import torch

from benchmarks.peers import attempt, detectron2_r50, r50_peers


def test_attempt__says_in_words_what_is_not_there():
    def broken():
        raise OSError("libpeer.so: cannot open\nmore")

    assert attempt(broken, "no_such_package") == "not installed"
    assert attempt(broken, "torch") == "OSError: libpeer.so: cannot open"
    assert attempt(lambda: print, "torch") is print


def test_detectron2_r50__three_maps():
    maps = detectron2_r50().to("meta")(torch.empty(2, 3, 64, 96, device="meta"))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "res3": (2, 512, 8, 12),
        "res4": (2, 1024, 4, 6),
        "res5": (2, 2048, 2, 3),
    }


@pytest.mark.slow
def test_r50_peers__each_runs_or_says_why_not():
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        calls = r50_peers(image, threads=1)
        for name, call in calls.items():
            if isinstance(call, str):
                assert call == "not installed", name
                continue
            outputs = call()
            if name.startswith(("ONNX", "OpenVINO")):
                last = list(outputs.values())[-1] if hasattr(outputs, "values") else outputs[-1]
                assert last.shape == (1, 2048, 2, 3), name
    assert list(calls)[:3] == ["detectron2", "timm", "torchvision"]
