from detrex.checkpoint.report import LoadReport, examples


def report(**kwargs):
    fields = {"source": "w.pth", "matched": (), "missing": (), "unexpected": (), "mismatched": ()}
    return LoadReport(**(fields | kwargs))


def test_share__counts_the_modules_tensors_only():
    got = report(matched=("a", "b", "c"), missing=("d",), mismatched=("e",), unexpected=("f", "g"))
    assert got.total == 5
    assert got.share == 0.6
    assert report().share == 0.0


def test_summary__one_line():
    got = report(matched=("a",), missing=("b", "c"), unexpected=("x",), names="other names")
    assert got.summary() == (
        "w.pth: 1 of 3 tensors loaded by other names; missing 2, of another shape 0, "
        "unused in the file 1"
    )


def test_summary__what_was_changed():
    got = report(matched=("a", "b", "c"), resized=("a", "b"), adapted=("c",))
    assert (
        "3 of 3 tensors loaded by same names, 2 of them resized, 1 of them adapted;"
        in got.summary()
    )
    assert got.share == 1
    assert got.exact == ()


def test_table__a_line_for_each_part():
    got = report(
        matched=("backbone.a.weight", "backbone.b.weight", "neck.a"), mismatched=("head.weight",)
    ).table()
    assert got.splitlines() == [
        "part      matched  missing  mismatched",
        "backbone        2        0           0",
        "neck            1        0           0",
        "head            0        0           1",
    ]


def test_table__two_components_where_all_share_the_first():
    got = report(matched=("net.a.weight", "net.b.weight")).table()
    assert [line.split()[0] for line in got.splitlines()] == ["part", "net.a", "net.b"]


def test_examples():
    assert examples([]) == "none"
    assert examples(["a", "b"]) == "'a', 'b'"
    assert examples(tuple("abcdef")) == "'a', 'b', 'c', 'd' and 2 more"
    assert examples(["x" * 999, "\x1b[2J"]) == f"'{'x' * 117}...', '\\x1b[2J'"


def test_lacking__by_kind():
    got = report(
        matched=("timm_model.a",),
        missing=("timm_model.b", "pyramid.levels.p3.weight"),
        mismatched=("timm_model.conv1.weight", "pyramid.levels.p4.weight"),
        inputs=("timm_model.conv1.weight",),
    )
    assert got.lacking == {
        "network": ("timm_model.b",),
        "input layer": ("timm_model.conv1.weight",),
        "pyramid": ("pyramid.levels.p3.weight", "pyramid.levels.p4.weight"),
    }
    assert "missing 2 (network 1, input layer 1, pyramid 2)" in got.summary()
    assert not got.is_plain


def test_share__a_file_of_the_network_alone():
    """A made pyramid is not counted where the file has none of it."""
    got = report(matched=("net.a",), missing=("pyramid.x", "pyramid.y", "net.b"))
    assert got.is_plain
    assert got.share == 0.5
    part = report(matched=("net.a", "pyramid.x"), missing=("pyramid.y", "net.b"))
    assert not part.is_plain
    assert part.share == 0.5
