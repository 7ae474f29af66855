import argparse

import pytest

from detrex.options import add_trust_option, positive


def test_add_trust_option__may_be_given_repeatedly():
    parser = argparse.ArgumentParser()
    add_trust_option(parser)
    assert parser.parse_args([]).trust == []
    assert parser.parse_args(["--trust", "mine", "--trust", "torch.hub"]).trust == [
        *("mine", "torch.hub")
    ]


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "x", ""])
def test_positive__refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        positive(text)
    assert positive("12") == 12
