import pytest

from detrex.errors import ConfigError
from detrex.modeling.consistency import check_consistent


def test_check_consistent__a_part_that_says_nothing_agrees():
    check_consistent({"a": 3, "b": None, "c": 3})


def test_check_consistent__shows_both_sides():
    with pytest.raises(ConfigError, match="a is 3, b is 4; give both the same"):
        check_consistent({"a": 3, "b": 4})
