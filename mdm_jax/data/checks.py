"""Checks of arguments that every kind of data shares."""

import operator
from typing import Any, Literal

from mdm_jax.errors import InputError

Split = Literal["train", "test"]


def whole_number(name: str, value: Any) -> int:
    """Returns an integer from 0 to 2^63 - 1.

    Args:
        name: What a message calls it.
        value: The integer, of any type that is one.

    Returns:
        It, as a Python int.

    Raises:
        InputError: It is none, or out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r} is not an integer: give a number from 0") from None
    if not 0 <= number < 1 << 63:
        raise InputError(f"{name}={value}: give an integer from 0 to 2^63 - 1")
    return number


def side_of(split: Split | None) -> int:
    """The number that compiled generators know a split by: 0 for "train", 1 for "test", -1 for None, which is both.

    Raises:
        InputError: It is none of these.
    """
    sides = {None: -1, "train": 0, "test": 1}
    if split not in sides:
        raise InputError(f"split={split!r} is unknown: choose 'train', 'test' or None for both")
    return sides[split]
