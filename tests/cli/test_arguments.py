import argparse

import pytest

from detrex.cli.arguments import (
    add_detector_arguments,
    parse_count,
    parse_integers,
    parse_number,
    parse_positive,
    parse_size,
    typed,
)


def test_parse_number():
    assert [parse_number(text) for text in ("40M", "1.5b", "800k", "7")] == [
        40_000_000,
        1_500_000_000,
        800_000,
        7,
    ]
    with pytest.raises(ValueError, match="could not convert"):
        parse_number("many")


def test_parse_integers_and_size():
    assert parse_integers("8,16") == (8, 16)
    assert parse_size("800x1333") == (800, 1333)
    for text in ("800", "0x5", "axb", "-5x7", "100001x7"):
        with pytest.raises(ValueError, match=r".*"):
            parse_size(text)


def test_parse_count():
    assert [parse_count(text) for text in ("0", "7")] == [0, 7]
    for text in ("-3", "1.5", "many", ""):
        with pytest.raises(ValueError, match=r".*"):
            parse_count(text)


def test_typed__numbers_without_end_are_misread_too():
    for read, text in ((parse_number, "inf"), (parse_number, "1e999"), (parse_positive, "0")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"expected e.g. 5M, got '{text}'"):
            typed(read, "5M")(text)
    assert typed(parse_positive, "8")("3") == 3


def test_add_detector_arguments__nothing_is_said_by_default():
    parser = argparse.ArgumentParser()
    add_detector_arguments(parser)
    unsaid = {"weights": None, "config": None, "threshold": None, "trust": []}
    assert vars(parser.parse_args([])) == unsaid
    assert parser.parse_args(["--threshold", "0.25"]).threshold == 0.25
