import argparse

from detrex.options import add_trust_option


def test_add_trust_option__may_be_given_repeatedly():
    parser = argparse.ArgumentParser()
    add_trust_option(parser)
    assert parser.parse_args([]).trust == []
    assert parser.parse_args(["--trust", "mine", "--trust", "torch.hub"]).trust == [
        *("mine", "torch.hub")
    ]
