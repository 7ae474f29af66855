import pytest

from detrex.config import load_config
from detrex.config.references import (
    MAX_LEVELS,
    MAX_REFERENCES,
    MAX_WRITTEN,
    check_references,
    refuse_reference,
)
from detrex.errors import ConfigError


def fold(count, reference="${k%d}", times=1, first="x"):
    return {"k0": first} | {f"k{i + 1}": (reference % i) * times for i in range(count)}


REFUSED = {
    "too many": ({"a": ["${b}"] * (MAX_REFERENCES + 1), "b": 1}, "2000 references"),
    "too long": ({"a": "x" * 200_000 + "${b}", "b": 1}, "200000 characters"),
    "a chain": (fold(MAX_LEVELS + 1), "more than 100 values"),
    "many chains": (
        {f"g{i}": fold(90, f"${{g{i}.k%d}}") for i in range(20)},
        f"{MAX_WRITTEN} bytes",
    ),
    "ten to ten": (fold(7, times=10), f"{MAX_WRITTEN} bytes"),
    "one long text": ({"a": "x" * 100_000, "b": ["${a}"] * 200}, f"{MAX_WRITTEN} bytes"),
    "relative": ({"g": fold(7, "${.k%d}", 10)}, f"{MAX_WRITTEN} bytes"),
    "in brackets": ({"g": fold(7, "${g[k%d]}", 10)}, f"{MAX_WRITTEN} bytes"),
    "by a resolver": (fold(7, "${oc.select:k%d,1}", 10), f"{MAX_WRITTEN} bytes"),
    "by a quoted key": (fold(7, "${oc.select: 'k%d',1}", 10), f"{MAX_WRITTEN} bytes"),
    "by names": (
        {"n": {str(i): f"k{i}" for i in range(7)}, "a": fold(7, "${a.${n.%d}}", 10)},
        f"{MAX_WRITTEN} bytes",
    ),
    "by groups": (
        {f"g{i}": {"x": f"${{g{i + 1}}}", "y": f"${{g{i + 1}}}"} for i in range(25)},
        f"{MAX_WRITTEN} bytes",
    ),
    "a made-up name": ({"a": {"b": 1}, "n": "${m}", "m": "b", "c": "${a.${n}}"}, "leads to one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_check_references__what_would_take_time_or_memory_is_refused(name):
    content, sentence = REFUSED[name]
    with pytest.raises(ConfigError, match=sentence):
        check_references(content)


@pytest.mark.parametrize(
    "content",
    [
        fold(MAX_LEVELS - 3),
        fold(3, times=10),
        {"a": {"b": "${..n}", "c": "${.b}"}, "n": 3, "d": "${a.${e}}", "e": "b"},
        {"a": ["${a[1]}", 2], "b": "${oc.env:HOME}/${absent}", "c": "${a.9}", "d": "${.a.0}"},
        {"a": "${a}", "b": "${c}", "c": "${b}", "d": {"e": "${d}"}},
        {"a": "${", "b": "${b${", "c": "$5", "d": ["${e}"] * 300, "e": list(range(100))},
        {"a": "x" * 300_000, 1: "${2}", 2: None},
    ],
)
def test_check_references__configs_that_people_write_pass(content):
    check_references(content)


def test_check_references__a_file_is_held_to_it(tmp_path):
    lines = [f"k{i + 1}: '{f'${{k{i}}}' * 10}'\n" for i in range(9)]
    (tmp_path / "config.yaml").write_text("k0: x\n" + "".join(lines))
    with pytest.raises(ConfigError, match="once its references are written out"):
        load_config(tmp_path / "config.yaml")


def test_refuse_reference__of_names_that_hold_none():
    for name in ("", "a $HOME b", "{x}", "$ {x}", "a\n%s"):
        refuse_reference(name, "it")
    with pytest.raises(ConfigError, match=r"^the folder a\\n\$\{x\} has \$\{ in its name"):
        refuse_reference("a\n${x}", "the folder")
