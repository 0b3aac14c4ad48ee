"""Checks of arguments that every kind of data shares."""

import operator
from typing import Any

from mdm_jax.errors import InputError


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
