"""The puzzles of the Sudoku commands."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.common import Results
from experiments.puzzles.data import Game, Records, joined, limited, load_splits
from experiments.sudoku.flags import DataFlags, Prepare
from experiments.training import say
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.builder import SudokuConfig, prepare_sudoku
from mdm_jax.tasks.sudoku.sets import generate_rated, read_rated

GAME = Game("sudoku", "puzzle", is_asked=lambda records: records["puzzle"] == 0, is_solved=sudoku.is_solved)
DATA_FIELDS = ("size", "clues", "difficulty", "num_train", "num_test", "seed", "source")
"""What names a data set, in flags and in a run's config."""


def prepare(flags: Prepare) -> None:
    """`prepare`: the data set on disk."""
    results = Results("sudoku", "prepare", out=flags.out, seed=flags.seed)
    data = load_data(flags)
    for split in ("train", "test"):
        givens = (data[split]["puzzle"] != 0).sum(axis=1)
        name = dataset_name(flags.size, flags.difficulty)
        by_rules = float((data[split]["order"] >= 0).all(axis=1).mean())
        results.add(dataset=name, split=split, n=len(givens), givens=float(givens.mean()), solved_by_rules=by_rules)
    results.finish()


def data_fields(flags: DataFlags) -> dict[str, Any]:
    """What names a data set."""
    fields = {name: getattr(flags, name) for name in DATA_FIELDS}
    return fields | {"source": None if flags.source is None else str(flags.source)}


def source_fields(flags: DataFlags) -> dict[str, Any]:
    """For a run's config, the name of the data set that a file gives, which changes with what is in the file."""
    return {} if flags.source is None else {"dataset": SudokuConfig(**data_fields(flags)).name}


def load_data(flags: DataFlags) -> dict[str, Records]:
    """Both splits in memory, prepared by the first process if they are not yet."""
    what = f"{flags.difficulty or ''} {flags.size}x{flags.size}".strip()
    say(f"puzzles: {flags.num_train} + {flags.num_test} of {what} in {flags.data} ...")
    return load_splits(functools.partial(prepare_sudoku, flags.data, **data_fields(flags), on_read=say))


def dataset_name(size: int, difficulty: str | None) -> str:
    """What rows call a set of puzzles."""
    return difficulty if difficulty and size == 9 else f"{size}x{size}" + (f"-{difficulty}" if difficulty else "")


def held_out_task(task: Mapping[str, Any], source: pathlib.Path | None, limit: int | None) -> dict[str, Any]:
    """The task with the file that the user names as its source, and the first `limit` of what it holds out.

    No file is opened because a run's config names it: that of a run which took its puzzles from one has to be given.
    """
    if source is None and task["source"] is not None:
        raise InputError(
            f"the run took its puzzles from {task['source']}: to use that file again, give it with --source"
        )
    return {**limited(task, limit), "source": source}


def test_set(task: Mapping[str, Any], difficulty: str | None) -> Records:
    """Puzzles of the test side, as many as the run held out."""
    if difficulty not in (None, *DIFFICULTIES):
        raise InputError(f"unknown difficulty {difficulty!r}; choose from {', '.join(DIFFICULTIES)}")
    options = {"size": task["size"], "difficulty": difficulty, "split": "test"}
    if task["source"] is not None:
        return read_rated(task["source"], task["num_test"], **options, on_read=say)
    return joined(list(generate_rated(task["num_test"], clues=task["clues"], seed=task["seed"], **options)))
