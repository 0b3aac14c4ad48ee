"""The puzzles of a command."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

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


class Layout(Protocol):
    """How a kind of puzzle is written as sequences, of any kind of model."""

    @property
    def method(self) -> str:
        """What results call a model of this layout."""
        ...

    def examples(self, records: Records) -> dict[str, NDArray[Any]]:
        """`tokens` int32 [N, L] and `is_prompt` bool [N, L] to train on."""
        ...

    def start(self, puzzles: NDArray[Any]) -> NDArray[np.int32]:
        """What a model goes on from, [N, L] or shorter; -1 behind a prompt that is."""
        ...

    def grids(self, tokens: NDArray[np.int32]) -> NDArray[Any]:
        """The answers in sequences, [N, C]."""
        ...

    def cells(self, values: NDArray[Any], tokens: NDArray[np.int32]) -> NDArray[Any]:
        """Of values [N, L] those that belong to the cells of the answers in `tokens`, [N, C]."""
        ...


@runtime_checkable
class MaskedLayout(Layout, Protocol):
    """That of a masked diffusion model: where it starts, `mask_id` stands wherever an answer is wanted."""

    @property
    def mask_id(self) -> int:
        """The mask token."""
        ...

    @property
    def zero(self) -> int:
        """The first of the tokens that answers are made of."""
        ...


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


def limited(task: Mapping[str, Any], limit: int | None) -> Mapping[str, Any]:
    """The task with no more held-out puzzles than are wanted, so that no others are made."""
    num = checked_limit(limit)
    return task if num is None else {**task, "num_test": min(num, task["num_test"])}


def joined(parts: list[Records]) -> Records:
    """Records that come one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
