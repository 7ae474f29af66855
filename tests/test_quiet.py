import logging
import subprocess
import sys

import pytest

from detrex.quiet import IN_FULL, fits_terminal, quiet_logs

PROGRAM = """
import multiprocessing, sys, warnings
from detrex.errors import DetrexWarning
from detrex.quiet import quiet_libraries

def remark():
    import logging
    import torch.jit
    warnings.warn_explicit("of torch", UserWarning, "torch/nn.py", 1, "torch.nn.functional")
    warnings.warn_explicit("of torch's plans", FutureWarning, "a.py", 1, "anyone")
    warnings.warn_explicit("of torchless", UserWarning, "a.py", 1, "torchless")
    warnings.warn_explicit("of ours", DetrexWarning, "torch/nn.py", 1, "torch.nn.modules.module")
    logging.getLogger("timm.models").warning("timm's remark")
    logging.getLogger("timm.models").error("timm's error")
    logging.getLogger("detrex.cli").warning("detrex's remark")
    hub = logging.getLogger("huggingface_hub")
    hub.addHandler(logging.StreamHandler())  # as it has one
    logging.getLogger("huggingface_hub.utils._http").warning("a try of the hub's")

if __name__ == "__main__":
    sys.modules["torch"] = sys.modules["torch.jit"] = sys  # only the names count
    quiet_libraries()
    quiet_libraries()
    remark()
    print(sys.warnoptions)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=print, args=("child",))
    child.start()
    child.join()
"""


def run(tmp_path, *options):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, *options, str(file)], capture_output=True, text=True, check=True
    )


def test_quiet_libraries__leaves_our_own_remarks_and_all_errors(tmp_path):
    done = run(tmp_path)
    told = done.stderr
    for text in ("of torchless", "of ours", "timm's error", "detrex's remark"):
        assert text in told
    for text in ("of torch\n", "plans", "timm's remark", "a try"):
        assert text not in told
    assert "ignore::FutureWarning" in done.stdout, "what multiprocessing hands on"


@pytest.mark.parametrize("option", ["-Wdefault", "-Walways::FutureWarning"])
def test_quiet_libraries__obeys_the_user(option, tmp_path):
    assert "of torch's plans" in run(tmp_path, option).stderr


def test_quiet_logs__up_to_a_level_and_only_within(caplog):
    log = logging.getLogger("detrex.a")
    with quiet_logs(logging.WARNING):
        log.warning("hidden")
        log.error("shown")
        with pytest.raises(KeyError), quiet_logs():
            raise {log.critical("hidden"): KeyError}[None]
    log.warning("after")
    assert caplog.messages == ["shown", "after"]


@pytest.mark.parametrize(
    ("name", "text", "extra", "fits"),
    [
        ("detrex.engine", "Model:" + "\nline" * 200, {}, True),
        ("detrex.engine", "Model: short", IN_FULL, False),
        ("detectron2.data.build", "Distribution of instances" + "\n|  a  |" * 40, {}, False),
        ("detectron2.data.build", "Distribution of instances" + "\n|  a  |" * 5, {}, True),
    ],
)
def test_fits_terminal__what_is_short_or_not_marked(name, text, extra, fits):
    record = logging.getLogger(name).makeRecord(name, 20, "f", 1, "%s", (text,), None, extra=extra)
    assert fits_terminal(record) is fits
