"""Numbers that several parts of a detector state, and that must be equal."""

from detrex.errors import ConfigError


def check_consistent(stated: dict[str, int | None], remedy: str = "give both the same") -> None:
    """Compare what several parts state about one number.

    Args:
        stated: who states it, and what; None where a part states nothing.
        remedy: how to mend a disagreement.

    Raises:
        ConfigError: when two differ.
    """
    values = {who: value for who, value in stated.items() if value is not None}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{who} is {value}" for who, value in values.items())
        raise ConfigError(f"the parts of the detector do not fit together: {listed}; {remedy}.")
