"""Type aliases, and checks of arguments, for all kinds of data."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from mdm_jax.errors import InputError, shown

Split = Literal["train", "test"]

Records = Mapping[str, NDArray[Any]]
"""The fields of N records, each [N, ...]."""

Say = Callable[[str], object]
"""Receives a line for the user."""

T = TypeVar("T")


def silent(line: str) -> None:
    """A `Say` that ignores the line."""
    del line


def lookup(kind: str, table: Mapping[str, T], name: str) -> T:
    """Returns an entry of a table.

    Args:
      kind: the kind of entries, for messages.
      table: the entries by name.
      name: the name of the entry.

    Raises:
      InputError: there is no such entry. The message lists the names.
    """
    if name not in table:
        raise InputError(f"unknown {kind} {shown(name)}; choose one of {', '.join(table)}")
    return table[name]


def whole_number(name: str, value: Any) -> int:
    """Returns an integer from 0 to 2^63 - 1 as a Python int.

    Args:
      name: the name of the value, for messages.
      value: an integer of any integer type.

    Raises:
      InputError: the value is no integer, or out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r} is not an integer: give a number from 0") from None
    if not 0 <= number < 1 << 63:
        raise InputError(f"{name}={value}: give an integer from 0 to 2^63 - 1")
    return number


def side_of(split: Split | None) -> int:
    """The number of a split in compiled generators: 0 for "train", 1 for "test", -1 for None, which means both.

    Raises:
      InputError: the split is unknown.
    """
    sides = {None: -1, "train": 0, "test": 1}
    if split not in sides:
        raise InputError(f"split={split!r} is unknown: choose 'train', 'test' or None for both")
    return sides[split]
