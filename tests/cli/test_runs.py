import argparse
import math

import pytest

from detrex.cli.runs import add_run_options, run_arguments, show_metrics
from detrex.config import find_config
from detrex.engine import argument_parser


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    return parser


def test_run_arguments__are_those_of_the_original_command(parser):
    name = "dino/dino_r50_4scale_12ep"
    machines = ["--num-gpus", "2", "--num-machines", "3", "--machine-rank", "1"]
    words = [*machines, "--dist-url", "tcp://a:1", "--trust", "mine"]
    given = parser.parse_args([name, "a.b=1", *words])
    file = str(find_config(name))
    expected = argument_parser().parse_args(["--config-file", file, *words, "a.b=1"])
    assert vars(run_arguments(given, find_config(name), None)) == vars(expected)


def test_run_arguments__a_folder_is_the_last_override(parser):
    name = "dino/dino_r50_4scale_12ep"
    given = parser.parse_args([name, "train.output_dir=a"])
    assert run_arguments(given, find_config(name), "it's").opts == [
        "train.output_dir=a",
        r"train.output_dir='it\'s'",
    ]


def test_show_metrics__a_row_for_each_task(capsys):
    by_class = {f"AP-{name}": 1.0 for name in "abc"}
    show_metrics({"bbox": {"AP": 41.234, "APs": math.nan, **by_class}, "segm": {"AP": 3}})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["TASK", "AP", "APs"],
        ["bbox", "41.23", "-"],
        ["segm", "3.00", "-"],
    ]


@pytest.mark.parametrize("metrics", [None, {}, {"copied": 3}])
def test_show_metrics__nothing_where_there_is_none(metrics, capsys):
    show_metrics(metrics)
    assert capsys.readouterr().out == ""
