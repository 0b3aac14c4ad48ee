"""The puzzles of the Zebra commands."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import Results, Row
from experiments.puzzles.data import Game, Records, checked_limit, joined, load_splits
from experiments.puzzles.reproduce import solved_by
from experiments.training import say
from experiments.zebra.flags import DataFlags, GivenFlags, Prepare
from mdm_jax.errors import InputError
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra.builder import prepare_zebra
from mdm_jax.tasks.zebra.clues import NONE, Size, check_sizes, sizes_of
from mdm_jax.tasks.zebra.formats import Written, read_puzzles
from mdm_jax.tasks.zebra.sets import generate_ordered
from mdm_jax.tasks.zebra.tokens import clue_tokens

GAME = Game("zebra", "clues", is_asked=lambda records: records["solution"] >= 0, is_solved=zebra.is_solved)

DATA_FIELDS = (
    "min_houses",
    "max_houses",
    "min_attributes",
    "max_attributes",
    "difficulty",
    "num_train",
    "num_test",
    "seed",
)
"""What names a data set, in flags and in a run's config."""


def prepare(flags: Prepare) -> None:
    """`prepare`: the data set on disk."""
    results = Results("zebra", "prepare", out=flags.out, seed=flags.seed)
    for split, records in load_data(flags).items():
        results.add(
            dataset=dataset_name(data_fields(flags)),
            split=split,
            n=len(records["clues"]),
            clues=float((records["clues"][:, :, 0] >= 0).sum(axis=1).mean()),
            tokens=float(clue_tokens(records["clues"])[1].sum(axis=1).mean()),
            solved_by_deduction=float((records["order"] >= 0).all(axis=1).mean()),
        )
    results.finish()


def data_fields(flags: DataFlags) -> dict[str, Any]:
    """What names a data set."""
    return {name: getattr(flags, name) for name in DATA_FIELDS}


def load_data(flags: DataFlags) -> dict[str, Records]:
    """Both splits in memory, prepared by the first process if they are not yet."""
    fields = data_fields(flags)
    say(f"puzzles: {flags.num_train} + {flags.num_test} of {dataset_name(fields)} in {flags.data} ...")
    return load_splits(functools.partial(prepare_zebra, flags.data, **fields))


def bounds(task: Mapping[str, Any]) -> tuple[Size, Size]:
    """The smallest and the largest size of a task's puzzles."""
    smallest, largest = (Size(task[f"{end}_houses"], task[f"{end}_attributes"]) for end in ("min", "max"))
    return check_sizes(smallest, largest)


def dataset_name(task: Mapping[str, Any]) -> str:
    """What rows call a set of puzzles; sizes are houses x attributes."""
    sizes = "-to-".join(dict.fromkeys(size_name(*size) for size in bounds(task)))
    return sizes + (f"-{task['difficulty']}" if task["difficulty"] else "")


def size_name(houses: int, attributes: int) -> str:
    """What rows call a size."""
    return f"{houses}x{attributes}"


def test_set(task: Mapping[str, Any]) -> Records:
    """The puzzles that a run held out."""
    smallest, largest = bounds(task)
    options: dict[str, Any] = {"difficulty": task["difficulty"], "seed": task["seed"], "split": "test"}
    return joined(list(generate_ordered(task["num_test"], smallest=smallest, largest=largest, **options)))


def written(flags: GivenFlags) -> dict[str, list[Written]]:
    """The first `limit` puzzles that the flags name, by riddle or file; none if they name none.

    Raises:
      InputError: Both kinds of flags are there, or a puzzle cannot be read.
    """
    if flags.riddle is not None and flags.puzzles:
        raise InputError("--riddle and --puzzles both give puzzles: leave one of them out")
    left = checked_limit(flags.limit)
    if flags.riddle is not None:
        riddle = zebra_riddles.get(flags.riddle)
        return {riddle.name: [Written(riddle.name, riddle.clues, riddle.names, riddle.question)]}
    found: dict[str, list[Written]] = {}
    for path in dict.fromkeys(flags.puzzles):
        if left == 0:
            break
        read = read_puzzles(path, limit=left)
        say(read.how)
        found[str(path)] = read.puzzles
        left = None if left is None else left - len(read.puzzles)
    return found


def given(flags: GivenFlags) -> dict[str, Records]:
    """The puzzles that the flags name with their solutions, by riddle or file.

    Raises:
      InputError: As `written`, or a puzzle has not exactly one solution.
    """
    return {name: solved(puzzles) for name, puzzles in written(flags).items()}


def solved(puzzles: Sequence[Written]) -> Records:
    """Puzzles as records; InputError unless each has exactly one solution."""
    clues = np.full((len(puzzles), max(len(puzzle.clues) for puzzle in puzzles), 4), NONE, np.int8)
    for row, puzzle in zip(clues, puzzles, strict=True):
        row[: len(puzzle.clues)] = puzzle.clues
    solutions, counts = zebra.solve(clues)
    for puzzle, count in zip(puzzles, counts, strict=True):
        if count == 0:
            raise InputError(f"{puzzle.name} has no solution: its clues contradict each other")
        if count > 1:
            raise InputError(f"{puzzle.name} has several solutions: add clues until there is one")
    return {"clues": clues, "solution": solutions}


def riddles(largest: Size) -> dict[str, Records]:
    """The famous puzzles that have no more houses and attributes, each alone, with its solution."""
    sizes = {name: sizes_of(riddle.clues[None]) for name, riddle in zebra_riddles.RIDDLES.items()}
    fitting = [name for name, size in sizes.items() if all(np.concatenate(size) <= largest)]
    return {name: given(GivenFlags(riddle=name))[name] for name in fitting}


def solved_by_size(records: Records, grids: np.ndarray) -> list[Row]:
    """How many are right of the puzzles of each size."""
    houses, attributes = sizes_of(records["clues"])
    is_solved = zebra.is_solved(grids, records["clues"])
    return solved_by("size", 10 * houses + attributes, lambda kind: size_name(*divmod(kind, 10)), is_solved)
