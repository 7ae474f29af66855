import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from detrex.engine import argument_parser, command_line, load_run_config, main, run
from detrex.engine.command_line import start_run
from detrex.engine.run_folder.identity import read_run
from detrex.errors import ConfigError, DetrexError
from tests.reference.stand_in_file import stand_in_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path):
    return stand_in_file(tmp_path, "out", max_iter=2)


def test_argument_parser__flags_of_the_original():
    args = argument_parser().parse_args(
        [
            "--config-file",
            "c.py",
            "--resume",
            "--eval-only",
            "--num-gpus",
            "2",
            "--num-machines",
            "3",
            "--machine-rank",
            "1",
            "--dist-url",
            "tcp://a:1",
            "train.max_iter=1",
            "+b=2",
        ]
    )
    assert (args.config_file, args.resume, args.eval_only) == ("c.py", True, True)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (2, 3, 1)
    assert (args.dist_url, args.opts) == ("tcp://a:1", ["train.max_iter=1", "+b=2"])
    assert argument_parser().parse_args([]).dist_url == "auto"


def test_main__trains_then_evaluates(config, tmp_path, capsys):
    options = ["--config-file", config]
    metrics = main(argument_parser().parse_args([*options, "train.max_iter=3"]))
    out = tmp_path / "out"
    first, _, _ = capsys.readouterr().out.partition("iter: ")
    assert len(first.splitlines()) < 12, "what it takes to begin is for the file"
    assert f"too: {out / 'log.txt'}" in first
    assert "StandIn: 156 parameters, of which 156 are trained." in first
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth"} <= {
        file.name for file in out.iterdir()
    }
    log = (out / "log.txt").read_text()
    assert "Command line" in log
    assert "PyTorch built with" in log
    assert "(head): Linear" in log
    assert "\x1b" not in log, "no colours in files"
    assert "iter: 3/3" in log
    weights = f"train.init_checkpoint={out / 'model_final.pth'}"
    assert run([*options, "--eval-only", weights]) == metrics


@pytest.mark.parametrize(
    ("here", "elsewhere", "option", "resumes"),
    [(1, 0, "--resume", True), (1, 0, "", True), (0, 1, "", True), (0, 0, "", False)],
)
def test_main__resumes_where_any_machines_torchrun_started_it_again(
    config, monkeypatch, here, elsewhere, option, resumes
):
    """Of ranks that disagree, some would wait for the others."""
    seen = []
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(here))
    monkeypatch.setattr(command_line, "exchange", lambda value: [value, elsewhere])
    monkeypatch.setattr(command_line, "do_train", lambda args, *_: seen.append(args.resume))
    main(argument_parser().parse_args(["--config-file", config, *filter(None, [option])]))
    assert seen == [resumes]


def test_main__an_evaluation_that_is_started_again_takes_its_weights(config, monkeypatch):
    seen = []
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr(command_line, "evaluate_only", lambda args, _: seen.append(args.resume))
    main(argument_parser().parse_args(["--config-file", config, "--eval-only"]))
    assert seen == [False]


def test_load_run_config__fast_dev_run(config):
    args = argument_parser().parse_args(
        ["--config-file", config, "train.fast_dev_run.enabled=True"]
    )
    train = load_run_config(args).train
    assert (train.max_iter, train.eval_period, train.log_period) == (20, 10, 1)


def test_start_run__statistics_are_numbers_where_detectors_take_them(config, tmp_path, capsys):
    with open(config, "a") as file:
        file.write("from detectron2.data import DatasetMapper\n")
        file.write("from detrex.config import get_detectron2_config\n")
        file.write("from detrex.modeling.backbone import TimmBackbone\n")
        file.write("model = get_detectron2_config('common/models/fcos.py').model\n")
        file.write("model.backbone.bottom_up = dict(\n")
        file.write("    _target_=TimmBackbone, model_name='test_resnet',\n")
        file.write("    out_features=['res3', 'res4', 'res5'],\n)\n")
        file.write("model.pixel_mean = model.pixel_std = 'auto'\n")
        file.write("dataloader.train.mapper = dict(\n")
        file.write("    _target_=DatasetMapper, is_train=True, augmentations=[],\n")
        file.write("    image_format='BGR',\n)\n")
    args = argument_parser().parse_args(["--config-file", config])
    cfg = load_run_config(args)
    files = start_run(cfg, args)
    assert "model.pixel_std: auto -> [127.5" in capsys.readouterr().out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["log.txt"]
    saved = yaml.unsafe_load(files[""])
    assert saved["model"]["pixel_mean"] == [127.5] * 3
    assert list(cfg.model.pixel_mean) == list(cfg.model.pixel_std) == [127.5] * 3
    assert cfg.dataloader.train.mapper.image_format == "RGB"


@pytest.mark.parametrize(
    "refused",
    [
        ["--resume", "model.width=7"],  # of another shape than the checkpoint
        ["train.init_checkpoint=absent.pth"],
        ["optimizer.lr=fast"],
        ["dataloader.train.dataset._target_=os.getcwd"],
    ],
)
def test_main__a_refused_start_leaves_the_config_of_the_run(config, tmp_path, refused):
    """Or, where a fresh run has the folder by then, under the name of its own."""
    main(argument_parser().parse_args(["--config-file", config]))
    before, run_id = (tmp_path / "out/config.yaml").read_bytes(), read_run(tmp_path / "out").id
    with pytest.raises(DetrexError):
        main(argument_parser().parse_args(["--config-file", config, *refused]))
    kept = tmp_path / "out" / f"config.{run_id}.yaml"
    if read_run(tmp_path / "out").id == run_id:
        kept = tmp_path / "out/config.yaml"
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config-file is missing"),
        (["--config-file", "nowhere/config.py"], r"nowhere/config\.py does not exist"),
        (["--config-file", "{config}", "train.max_itr=5"], "Did you mean 'max_iter'"),
        (["--config-file", "{config}", "train.device=cdua"], "no device that PyTorch knows"),
        (["--config-file", "{config}", "train.output_dir=/dev/null/x"], "/dev/null is a file"),
        (["--config-file", "{config}", "train.max_iter=1", "--resume"], "put options such as"),
        (["--config-file", "{config}", "--num-gpus", "0"], "do not fit"),
        (["--config-file", "{config}", "model.nan_at=0"], "iteration 0: the loss loss_bbox"),
    ],
)
def test_run__mistakes_end_in_one_sentence(config, arguments, message):
    with pytest.raises(SystemExit, match=message) as exit_info:
        run([argument.format(config=config) for argument in arguments])
    text = exit_info.value.code
    assert isinstance(text, str), "a message gives status 1"
    assert "\n" not in text
    assert text.split(":")[0] in {"ConfigError", "NonFiniteLossError"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_run__cuda_without_gpu(config):
    with pytest.raises(SystemExit, match="PyTorch sees no CUDA device here"):
        run(["--config-file", config, "train.device=cuda"])


def test_load_run_config__missing_parts(tmp_path):
    (tmp_path / "empty.py").write_text("train = dict(device='cpu')\n")
    args = argument_parser().parse_args(["--config-file", str(tmp_path / "empty.py")])
    with pytest.raises(ConfigError, match=r"the config has no 'model', .* \(5 more: "):
        load_run_config(args)


def test_run__leftovers_and_misspelt_keys_do_not_end_it(config, tmp_path):
    with open(config, "a") as file:
        file.write("import math\ntrain.max_itr = 3\noptimizer.weight_decay = '${optimizer.lr}'\n")
        file.write("part = optimizer.params\nhelpers = dict(function=lambda x: x)\n")
        file.write("mine = dict(note='first')\n")
    run(["--config-file", config])
    saved = yaml.unsafe_load((tmp_path / "out" / "config.yaml").read_text())
    assert set(saved) == {"model", "optimizer", "lr_multiplier", "dataloader", "train", "mine"}
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "train.max_itr is no key that a run reads. Did you mean 'max_iter'?" in log
    assert "Unable to serialize" not in log


def test_train_net_and_check__exit_statuses(config):
    """As processes of their own, whose last line is the sentence."""
    sentence = "train.checkpointer.period=0 cannot be used: expected a whole number of at least 1."
    train = [sys.executable, "tools/train_net.py", "--config-file", config]
    check = [sys.executable, "-W", "ignore", "-m", "detrex", "check", config]
    for command in (train, check):
        ended = subprocess.run(
            [*command, "train.checkpointer.period=0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert "torch.jit" not in ended.stderr
        lines = [*ended.stdout.splitlines(), *ended.stderr.splitlines()]
        assert lines[-1].endswith(sentence)
