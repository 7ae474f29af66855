import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"


def test_train_net__a_mistake_is_one_sentence_on_stderr():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--config-file", "configs/dino/dino_r50_4scale_12ep.pyy"],
        capture_output=True,
        text=True,
        check=False,
        cwd=SCRIPT.parents[1],
    )
    assert done.returncode == 1
    message = [line for line in done.stderr.splitlines() if "Warning" not in line][-1]
    assert message.startswith("ConfigError: Config file")
    assert "dino_r50_4scale_12ep.py'" in message
    assert "Traceback" not in done.stderr
