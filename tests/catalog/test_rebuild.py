import timm
import torchvision

from detrex.catalog.analysis import survey
from detrex.catalog.rebuild import architectures, entry_of, weights_of
from detrex.catalog.table import packaged_file, read_catalog
from detrex.cli import main


def test_rebuild__looks_at_what_is_asked_for_and_keeps_the_rest(tmp_path, capsys):
    file = tmp_path / "table.csv"
    words = ["backbones", "rebuild", "--only", "resnet10t", "--output", str(file)]
    assert main(words) == 0
    assert "architectures give res3, res4 and res5" in capsys.readouterr().out
    rebuilt, packaged = read_catalog(file), read_catalog(packaged_file())
    assert {e.name for e in rebuilt.entries} == {e.name for e in packaged.entries} | {"resnet10t"}
    (entry,) = [e for e in rebuilt.entries if e.name == "resnet10t"]
    assert entry == entry_of(survey("resnet10t", "timm"))


def test_rebuild__no_such_name(capsys):
    assert main(["backbones", "rebuild", "--only", "resnet5O*"]) == 1
    assert "no architecture is named like 'resnet5O*'" in capsys.readouterr().err


def test_architectures__are_all_but_timms_own_tests():
    pairs = architectures()
    assert ("resnet50", "timm") in pairs
    assert ("resnet50", "torchvision") in pairs
    assert not any(name.startswith("test_") for name, _ in pairs)
    assert len(pairs) > 1000


def test_weights_of__default_first():
    tags, licence = weights_of("resnet50", "timm")
    assert tags[0] == timm.models.get_pretrained_cfg("resnet50").tag
    assert set(tags) == {n.partition(".")[2] for n in timm.list_pretrained("resnet50.*")}
    assert licence == "apache-2.0"
    members = torchvision.models.get_model_weights("resnet50")
    assert weights_of("resnet50", "torchvision") == (tuple(m.name for m in members), "")


def test_entry_of__failure_keeps_its_reason():
    row = {"name": "resnet50", "library": "timm", "ok": False, "reason": "RuntimeError: no"}
    entry = entry_of(row)
    assert (entry.strides, entry.reason) == ((), "RuntimeError: no")
