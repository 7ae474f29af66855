import logging
import signal
import sys
from types import SimpleNamespace

import pytest

from detrex.cli import hydra_train as tool
from detrex.engine import signals
from detrex.errors import ConfigError

SLURM = {"ddp_comm_mode": "tcp", "share_root": None}

ARGS = {
    **{"config_file": "c.py", "num_gpus": 1, "num_machines": 2, "machine_rank": 0},
    **{
        "dist_url": "auto",
        "resume": False,
        "eval_only": False,
        "trust": [],
        "opts": [],
        "slurm": SLURM,
    },
}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Command lines that would have been run."""
    started = []
    monkeypatch.setattr(tool, "run_words", started.append)
    monkeypatch.chdir(tmp_path)
    return started


@pytest.fixture
def submitit(monkeypatch):
    """A cluster of two machines that notes what it gets; we are on its second machine."""
    cluster = SimpleNamespace(parameters={}, jobs=[])

    class Executor:
        def __init__(self, folder):
            self.folder = folder

        def update_parameters(self, **parameters):
            cluster.parameters.update(parameters)

        def submit(self, job):
            cluster.jobs.append(job)
            return SimpleNamespace(job_id="31415")

    environment = SimpleNamespace(hostnames=["n7", "n9"], job_id="31415_2", node=1)
    module = SimpleNamespace(
        AutoExecutor=Executor,
        JobEnvironment=lambda: environment,
        helpers=SimpleNamespace(DelayedSubmission=lambda job: job),
    )
    monkeypatch.setitem(sys.modules, "submitit", module)
    return cluster


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hydra_train_net.py", *words])
    tool.hydra_app()


def options(words):
    """The options of a command line and the overrides behind them."""
    named = {w: words[i + 1] for i, w in enumerate(words) if w.startswith("--") and i % 2 == 0}
    return named, words[2 * len(named) :]


def test_hydra_app__hands_its_arguments_on(monkeypatch, runs):
    call(
        monkeypatch, "config_file=c.py", "num_gpus=2", "+model.num_queries=50", "++train.new=[1,2]"
    )
    ((named, opts),) = map(options, runs)
    assert named == {
        "--config-file": "c.py",
        "--num-gpus": "2",
        "--num-machines": "1",
        "--machine-rank": "0",
        "--dist-url": "auto",
    }
    assert opts == ["model.num_queries=50", "+train.new=[1,2]"]


def test_hydra_app__hands_trusted_packages_on(monkeypatch, runs):
    call(monkeypatch, "config_file=c.py", "trust=[mine,torch.hub]")
    assert runs[0][-4:] == ["--trust", "mine", "--trust", "torch.hub"]


@pytest.mark.parametrize(
    "word",
    [
        *("hydra.launcher._target_=os.system", "+hydra.callbacks.x._target_=os.system"),
        "++hydra.sweeper={_target_:os.system}",
        "hydra/job_logging=default",
        " hydra.sweeper=1,2",
        *("+hydra.job_logging.handlers.x.class=os.system", "+slurm@hydra.callbacks=research"),
        *("hydra.searchpath=[file:///tmp]", "hydra={callbacks:{x:1}}", "+slurm@hydra=research"),
        *("--config-dir=elsewhere", "-cd", "--config-name=other", "--config-p", "hydra.run=${"),
    ],
)
def test_check_words__nothing_makes_hydra_call_foreign_code(word):
    with pytest.raises(ConfigError, match=r"is refused|is not an override") as info:
        tool.check_words(["config_file=c.py", word])
    assert "\n" not in str(info.value)


def test_check_words__takes_the_rest():
    words = ["-m", "config_file=c.py", "hydra.run.dir=out", "+hydra.job.num=3", "+slurm=research"]
    tool.check_words([*words, "hydra/launcher=basic", "+model.hydra=1", "+optimizer.lr=1,2"])


def test_hydra_app__leaves_logging_to_the_run(monkeypatch, runs):
    root, ours = logging.getLogger(), logging.getLogger("detrex.engine.of_a_test")
    before = (root.level, root.handlers[:])
    call(monkeypatch, "config_file=c.py")
    assert len(runs) == 1
    assert not ours.disabled
    assert (root.level, root.handlers) == before


def test_hydra_app__sweeps_into_folders_of_their_own(monkeypatch, runs):
    words = ["-m", "config_file=a/dino.py", "auto_output_dir=true", "+optimizer.lr=0.1,0.2"]
    call(monkeypatch, *words, "resume=true")
    assert [line[0] for line in runs] == ["--resume", "--resume"]
    assert [line[-2:] for line in runs] == [
        [f"optimizer.lr={lr}", f"train.output_dir='./output/dino/optimizer.lr={lr}'"]
        for lr in ("0.1", "0.2")
    ]


def test_output_folder__is_one_name_for_any_overrides():
    assert tool.output_folder("a/b.py", []) == "./output/b/default"
    odd = [["train.x='a'"], ["train.x=a"], ["train.x=${b}"], ["train.x={b}"], ["x=" + "y" * 300]]
    folders = [tool.output_folder("b.py", opts) for opts in odd]
    assert len(set(folders)) == len(odd)
    for folder in folders:
        name = folder.removeprefix("./output/b/")
        assert len(name) < 250
        assert not set(name) & set("'\"/${} ")


def test_config_overrides__leave_slurm_out():
    given = ["+slurm=big", "+slurm.partition=x", "+model.a=1", "num_gpus=2"]
    assert tool.config_overrides(given) == ["model.a=1"]


def test_hydra_app__submits_and_resumes_a_job(monkeypatch, runs, submitit, capsys):
    call(
        monkeypatch,
        "config_file=c.py",
        "num_machines=2",
        "num_gpus=8",
        "+slurm=research",
        "slurm.partition=big",
    )
    assert "Submitted batch job 31415" in capsys.readouterr().out
    assert runs == []
    expected = {"nodes": 2, "gpus_per_node": 8, "tasks_per_node": 1, "slurm_partition": "big"}
    assert expected.items() <= submitit.parameters.items()
    (job,) = submitit.jobs
    job()
    job.checkpoint()()
    first, again = runs
    assert again == ["--resume", *first]
    named, opts = options(first)
    assert named["--machine-rank"] == "1"
    assert named["--dist-url"] == "tcp://n7:34152"
    assert opts == []


@pytest.mark.usefixtures("submitit")
def test_trainer__writes_a_checkpoint_before_it_is_queued_again(monkeypatch):
    def run(_words):
        with signals.heeded():
            signal.raise_signal(signal.SIGUSR2)
            pytest.fail("it is SIGTERM to the run")

    seen = []
    monkeypatch.setattr(tool, "run_words", run)
    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append("queued again"))
    try:
        with pytest.raises(SystemExit) as caught:
            tool.Trainer(ARGS)()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert caught.value.code == 75
    assert seen == ["queued again"]


def test_hydra_app__without_submitit(monkeypatch, runs):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit, match=r"ConfigError: \+slurm needs the package submitit"):
        call(monkeypatch, "config_file=c.py", "+slurm=research")


def test_get_dist_url__of_a_file(tmp_path):
    url = tool.get_dist_url("file", str(tmp_path), ["n7"], "5")
    assert url == f"file://{tmp_path}/detrex_5"
    with pytest.raises(ConfigError, match=r"ddp_comm_mode=file with slurm\.share_root=None"):
        tool.get_dist_url("file", None, ["n7"], "5")
