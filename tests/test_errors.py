"""The errors and the hint of a near name."""

import pytest

from detrex.errors import (
    BackboneError,
    CheckpointError,
    ConfigError,
    DataError,
    DetrexError,
    DownloadError,
    NonFiniteLossError,
    PictureError,
    RunError,
    UploadError,
    did_you_mean,
    first_line,
    interruption_behind,
    not_replaced,
    printable,
    run_tool,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (BackboneError, ValueError),
        (ConfigError, ValueError),
        (DataError, ValueError),
        (CheckpointError, ValueError),
        (DownloadError, OSError),
        (UploadError, OSError),
        (PictureError, ValueError),
        (RunError, OSError),
        (NonFiniteLossError, ArithmeticError),
    ],
)
def test_error__is_caught_as_ours_and_as_the_builtin(error, builtin):
    assert issubclass(error, DetrexError)
    with pytest.raises(builtin, match="why"):
        raise error("why")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet5O", " Did you mean 'resnet50' or 'resnet50d'?"),
        ("convnext", " Did you mean 'convnext_tiny'?"),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_did_you_mean__names_what_is_near(name, expected):
    assert did_you_mean(name, ["resnet50", "resnet50d", "convnext_tiny"]) == expected


def test_did_you_mean__stops_at_the_limit():
    assert did_you_mean("layer", (f"layer{i}" for i in range(9)), limit=2).count(" or ") == 1


def test_did_you_mean__takes_keys_that_are_no_strings():
    assert did_you_mean(123, [124, 9]) == " Did you mean '124'?"


@pytest.mark.parametrize("error", [ConfigError, FileNotFoundError])
def test_run_tool__a_mistake_ends_in_a_sentence(error):
    def main():
        raise error("it is not there")

    with pytest.raises(SystemExit) as caught:
        run_tool(main, OSError)
    assert caught.value.code == f"{error.__name__}: it is not there"


def test_run_tool__other_errors_stay():
    def main():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_tool(main, OSError)
    run_tool(lambda: 7)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9\u4e2d \U0001f600", "plain \u00e9\u4e2d \U0001f600"),
        ("two\nlines\r\t\x00", r"two\nlines\r\t\x00"),
        ("\x1b[2Jcleared\x9b", r"\x1b[2Jcleared\x9b"),
        ("no utf-8 \udcff.pth", r"no utf-8 \udcff.pth"),
        ("\u2028\x85", r"\u2028\x85"),
        ("w\u202ehtp.", r"w\u202ehtp."),
    ],
)
@pytest.mark.parametrize("kind", [CheckpointError, DownloadError, DetrexError])
def test_error__is_printable_on_one_line(kind, text, shown):
    assert str(kind(text)) == printable(text) == shown
    shown.encode()


def _while_ending(interruption):
    """An error as a library raises it in the place of what a signal raised."""
    try:
        try:
            raise interruption
        finally:
            None.attribute  # noqa: B018
    except AttributeError as error:
        try:
            raise ConfigError("the model cannot be built") from error
        except ConfigError as sentence:
            return sentence


class Stopped(SystemExit):
    """As a handler of a signal raises it."""


def test_interruption_behind():
    for interruption in (KeyboardInterrupt(), Stopped(75)):
        assert interruption_behind(_while_ending(interruption)) is interruption
        assert interruption_behind(interruption) is interruption
    assert interruption_behind(_while_ending(SystemExit(0))) is None
    assert interruption_behind(ConfigError("no")) is None


def test_not_replaced__an_error_does_not_take_the_place_of_an_interruption():
    with pytest.raises(KeyboardInterrupt), not_replaced():
        raise _while_ending(KeyboardInterrupt())
    with pytest.raises(ValueError, match="of its own"), not_replaced():
        raise ValueError("of its own")


def test_first_line():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("x" * 200), 7) == "x" * 7
