"""The puzzles of a command."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdm_jax.data import builders
from mdm_jax.errors import InputError
from mdm_jax.training.distributed import barrier, is_lead

Records = Mapping[str, NDArray[Any]]
"""Fields of N puzzles: `solution` [N, C], the puzzle itself, and others."""


@dataclasses.dataclass(frozen=True)
class Game:
    """A kind of puzzle, for code that serves all kinds."""

    name: str
    """the experiment's"""
    field: str
    """of records: the puzzles"""
    is_asked: Callable[[Records], NDArray[np.bool_]]
    """records -> which cells are to be filled in, [N, C]"""
    is_solved: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
    """(answers [N, C], puzzles) -> which are right, [N]"""


def load_splits(prepare: Callable[[], Any]) -> dict[str, Records]:
    """Both splits of a tfds builder in memory; `prepare` gives it, and the first process writes it if it is not yet."""
    if is_lead():
        prepare()
    barrier("the puzzles are prepared")
    return {split: builders.read_split(prepare(), split) for split in ("train", "test")}


def checked_limit(limit: int | None, flag: str = "--limit") -> int | None:
    """The limit; InputError if nothing is left. `flag` is what the message names."""
    if limit is not None and limit < 1:
        raise InputError(f"{flag} must be at least 1, got {limit}")
    return limit


def first(limit: int | None, records: Records, flag: str = "--limit") -> Records:
    """The first `limit` records; all if that is None. `flag` is what the message names."""
    limit = checked_limit(limit, flag)
    return {name: rows[:limit] for name, rows in records.items()}


def joined(parts: list[Records]) -> Records:
    """Records that come one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
