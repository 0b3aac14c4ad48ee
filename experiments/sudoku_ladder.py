"""`evaluate --ladder FOLDER`: the same sets of Sudokus for every model, from easy to the hardest that are known."""

import pathlib

from experiments.common import say
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.tasks.base import Records, held_out
from mdm_jax.tasks.sudoku.files import read_puzzles
from mdm_jax.tasks.sudoku.task import Sudoku

FILES = ("17_clue", "magictour_top1465", "forum_hardest_se11_1k", "forum_hardest_1106")
"""Parts of the names of the public lists. Each is a set of the ladder, in this order behind our own two."""
NUM = 1_000
"""Puzzles of each of our own sets."""
OWN = [Sudoku(difficulty=difficulty, num_train=1, num_test=NUM) for difficulty in DIFFICULTIES]
"""Our own sets."""


def ladder(folder: pathlib.Path, limit: int | None) -> dict[str, Records]:
    """The sets: our own, generated, and those of the lists that the folder holds.

    Args:
      folder: holds the lists. Of one that it lacks, a line says so.
      limit: the largest number of puzzles of each set, from the first; None for all.

    Raises:
      InputError: the folder holds none of the lists, or one is faulty.
    """
    paths = _lists(folder)
    sets = {}
    for own in OWN:
        sets[own.title] = held_out(own, limit, say=say)
    for name, path in paths.items():
        if path is None:
            say(f"{folder} holds no list {name}, so that set is left out")
            continue
        found = read_puzzles(path, size=9, limit=limit)
        say(found.how)
        sets[name] = {"puzzle": found.puzzles, "solution": found.solutions}
    return sets


def names_in(folder: pathlib.Path) -> list[str]:
    """The names of the sets that `ladder` gives, without reading them; raises what it raises about the folder."""
    return [*(own.title for own in OWN), *(name for name, path in _lists(folder).items() if path is not None)]


def _lists(folder: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """The file of each public list; None for one that the folder lacks."""
    if not folder.is_dir():
        raise InputError(f"--ladder {folder}: there is no such folder")
    paths = {name: next(iter(sorted(folder.glob(f"*{name}*"))), None) for name in FILES}
    if not any(paths.values()):
        raise InputError(f"--ladder {folder} holds none of the lists {', '.join(FILES)}: docs/planning.md names them")
    return paths
