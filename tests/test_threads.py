"""What a command says about threads, on made file systems and in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detrex import threads

ROOT = Path(__file__).resolve().parent.parent
NAMES = (*threads.COUNTS, *threads.WAITING)
BRIEFLY = {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "1"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr(threads, "_set_here", {})
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def _write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, None, id="no cgroups"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            id="v2, in a container",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
            None,
            id="v2, no bound",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a.slice/job/x:y\n",
                "sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a.slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a.slice/job/x:y/cpu.max": "400000 100000\n",
            },
            2.0,
            id="v2, the group around it is the tighter",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "350000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000\n",
            },
            7.0,
            id="v1, in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/job\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1, a group of its own",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:name=systemd:/\n0::/../outside\n",
                "sys/fs/cgroup/unified/cpu.max": "300000 100000\n",
            },
            3.0,
            id="both versions, seen from another namespace",
        ),
        pytest.param(
            {"proc/self/cgroup": "nonsense\n0::/\n", "sys/fs/cgroup/cpu.max": "what\n"},
            None,
            id="nothing that can be read",
        ),
    ],
)
def test_cpu_quota__is_read_from_either_version(tmp_path, files, cores):
    assert threads.cpu_quota(_write(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("quota", "siblings", "expected"),
    [
        (None, ("0-1", "0-1", "4"), 2),  # two threads of one core
        (None, (), 3),  # a system that does not tell
        ("250000 100000", ("0", "1", "4"), 2),
        ("50000 100000", ("0", "1", "4"), 1),
        ("800000 100000", ("0", "1", "4"), 3),
    ],
)
def test_available_cores__mask_and_quota(tmp_path, monkeypatch, quota, siblings, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4}, raising=False)
    files = {"proc/self/cgroup": "0::/\n"} | ({"sys/fs/cgroup/cpu.max": quota} if quota else {})
    for number, text in zip((0, 1, 4), siblings, strict=False):
        files[f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"] = text
    assert threads.available_cores(_write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("of_user", "expected"),
    [
        ({}, {"OMP_NUM_THREADS": "6", **BRIEFLY}),
        ({"OMP_NUM_THREADS": "2"}, BRIEFLY),
        ({"MKL_NUM_THREADS": "2"}, BRIEFLY),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_NUM_THREADS": "6"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_NUM_THREADS": "6"}),
        ({"KMP_BLOCKTIME": "0"}, {"OMP_NUM_THREADS": "6"}),
    ],
)
def test_thread_variables__leave_the_users_own(monkeypatch, of_user, expected):
    monkeypatch.setattr(threads, "available_cores", lambda: 6)
    assert threads.thread_variables(of_user) == expected


@pytest.mark.parametrize(
    ("ranks", "most", "count"), [(2, None, 3), (4, None, 1), (9, 4, 1), (1, 4, 4)]
)
def test_thread_variables__ranks_share_the_cores(monkeypatch, ranks, most, count):
    monkeypatch.setattr(threads, "available_cores", lambda: 6)
    found = threads.thread_variables({}, ranks=ranks, most=most)
    assert found["OMP_NUM_THREADS"] == str(count)


@pytest.mark.parametrize("of_user", [{}, {"OMP_NUM_THREADS": "5"}])
def test_threads_shared_by__for_what_is_started_within(monkeypatch, of_user):
    monkeypatch.setattr(threads, "available_cores", lambda: 6)
    monkeypatch.setattr(sys, "modules", {})  # as before torch is imported
    for name, value in of_user.items():
        monkeypatch.setenv(name, value)
    threads.prepare_threads()
    outside = {name: os.environ.get(name) for name in NAMES}
    assert outside["OMP_NUM_THREADS"] == of_user.get("OMP_NUM_THREADS", "6")
    with threads.threads_shared_by(2):
        assert os.environ["OMP_NUM_THREADS"] == of_user.get("OMP_NUM_THREADS", "3")
        assert os.environ["GOMP_SPINCOUNT"] == "30000"
    assert {name: os.environ.get(name) for name in NAMES} == outside


def test_prepare_threads__leaves_a_process_that_has_torch():
    threads.prepare_threads()
    assert not os.environ.keys() & {*NAMES}


# Stands in the way of torch's import, and says what it would have read.
_WATCH = """
import json, os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(json.dumps({n: os.environ.get(n) for n in NAMES}), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.argv = WORDS
runpy.run_path(WORDS[0], run_name="__main__") if WORDS[0].endswith(".py") else runpy.run_module(
    WORDS[0], run_name="__main__", alter_sys=True
)
"""
PROGRAMS = (
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tools").glob("*.py")),
    *("demo/run.py", "demo/demo.py"),
)


@pytest.mark.parametrize("program", [*PROGRAMS, "detrex"])
def test_programs__set_their_threads_before_torch_is_imported(program):
    words = [program] if program in PROGRAMS else [program, "check", "no.py"]
    if program == "tools/analyze_model.py":  # which reads its options without torch
        words += ["--config-file", "dino/demo_shapes.py", "--tasks", "parameter"]
    code = _WATCH.replace("NAMES", repr(NAMES)).replace("WORDS", repr(words))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    seen = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert seen.stdout, seen.stderr
    found = json.loads(seen.stdout)
    assert found == {"OMP_NUM_THREADS": "1", **dict.fromkeys(NAMES[1:]), **BRIEFLY}


def test_use_one_thread__in_libraries_loaded_before_and_after():
    code = """
import os, sys
from detrex.threads import use_one_thread
if sys.argv[1] == "before":
    import cv2
use_one_thread(3)
import cv2
print(cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"])
"""
    pytest.importorskip("cv2")
    for when in ("before", "after"):
        seen = subprocess.run(
            [sys.executable, "-c", code, when], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert seen.stdout.split() == ["1", "1"]
