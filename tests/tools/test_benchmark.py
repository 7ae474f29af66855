import pytest

from detrex.errors import ConfigError
from tests.reference.stand_in_file import stand_in_file
from tools import benchmark


def test_main__a_line_for_each_part(tmp_path, capsys):
    config = stand_in_file(tmp_path)
    benchmark.main(["--config-file", config, "--task", "eval", "-n", "3", "--warmup", "1"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " s a " in line)
    assert line.startswith("eval ")
    assert line.endswith("1 process(es)")


def test_main__needs_a_config():
    with pytest.raises(ConfigError, match="name one by --config-file"):
        benchmark.main(["--task", "data"])
