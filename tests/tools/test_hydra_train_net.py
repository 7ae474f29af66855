import subprocess
import sys

from tests.reference.forked import ROOT


def test_hydra_train_net__a_mistake_is_one_sentence_on_stderr():
    done = subprocess.run(
        [sys.executable, "tools/hydra_train_net.py", "--config-dir=elsewhere"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    sentence = "--config-dir=elsewhere is refused: the program has its own config for Hydra."
    assert done.stderr == f"ConfigError: {sentence}\n"
