"""Zebra puzzles from riddles and files, solved by a model or by deduction."""

import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.commands import solve as verb
from experiments.commands.decode import Decoded
from experiments.commands.flags import Question
from experiments.commands.reproduce import solved_by
from experiments.commands.view import check_viewer, record_at, write_page
from experiments.common import Results, Row, say, say_written
from mdm_jax.errors import InputError, one_line
from mdm_jax.evaluation.replay import trace_of
from mdm_jax.tasks.base import Records
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra import riddles as zebra_riddles
from mdm_jax.tasks.zebra.clues import NONE, Size, sizes_of
from mdm_jax.tasks.zebra.deduction import deduce
from mdm_jax.tasks.zebra.english import describe_clues
from mdm_jax.tasks.zebra.formats import Written, read_puzzles
from mdm_jax.tasks.zebra.task import Zebra, grid_table, size_name


def solve(flags: Any) -> None:
    """`solve`: prints the clues, the answer and the steps of each puzzle."""
    if flags.checkpoint is not None:
        verb.solve(flags)
        return
    check_viewer(flags.viewer)
    results = Results("zebra", "solve", out=flags.out, seed=flags.seed)
    if changed := sorted(flags.changed()):
        raise InputError(f"--{changed[0].replace('_', '-')} is for a model: give --checkpoint, or leave it out")
    written_down = written(flags.riddle, flags.puzzles, flags.limit)
    asked = questions(written_down)
    for question, puzzle in zip(asked, _each(written_down), strict=True):
        sys.stdout.write(question.intro)
        write_deduction(results, puzzle, question.records)
    results.finish()
    if flags.viewer is not None:
        write_deduction_page(flags.viewer, asked[0])
        say_written(flags.viewer)


def written(riddle: str | None, paths: Sequence[pathlib.Path], limit: int | None) -> dict[str, list[Written]]:
    """Reads a riddle or files of puzzles. Gives no puzzles if neither is named.

    Args:
      riddle: the name of the riddle.
      paths: the files.
      limit: the largest number of puzzles; None for all.

    Raises:
      InputError: both are given, or a puzzle cannot be read.
    """
    if riddle is not None and paths:
        raise InputError("--riddle and --puzzles both give puzzles: leave one of them out")
    if riddle is not None:
        found = zebra_riddles.get(riddle)
        return {found.name: [Written(found.name, found.clues, found.names, found.question)]}
    files: dict[str, list[Written]] = {}
    for path in dict.fromkeys(paths):
        left = None if limit is None else limit - sum(map(len, files.values()))
        if left == 0:
            break
        read = read_puzzles(path, limit=left)
        say(read.how)
        files[str(path)] = read.puzzles
    return files


def solved(puzzles: Sequence[Written]) -> Records:
    """Solves puzzles exactly and returns them as records; raises InputError unless each has exactly one solution."""
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
    """The famous puzzles up to a size, each as records of its own, with its solution."""
    known = {name: written(name, (), None)[name] for name in zebra_riddles.RIDDLES}
    sizes = {name: np.concatenate(sizes_of(puzzles[0].clues[None])) for name, puzzles in known.items()}
    return {name: solved(puzzles) for name, puzzles in known.items() if (sizes[name] <= largest).all()}


def questions(found: Mapping[str, Sequence[Written]]) -> list[Question]:
    """One question for each puzzle, with its clues in English and its own names.

    Raises:
      InputError: there is no puzzle, or one does not have exactly one solution.
    """
    if not found:
        raise InputError("give a puzzle: --riddle fish, or files with --puzzles")
    made = []
    for puzzle in _each(found):
        lines = describe_clues(puzzle.clues, puzzle.names) + ([puzzle.question] if puzzle.question else [])
        intro = f"\n{one_line(puzzle.name)}\n" + "".join(f"  {line}\n" for line in lines)
        task = Zebra(num_train=1, num_test=1)
        show, view = (
            functools.partial(task.show, names=puzzle.names),
            functools.partial(task.view, names=puzzle.names),
        )
        made.append(Question(puzzle.name, solved([puzzle]), intro, [""], show, view))
    return made


def _each(found: Mapping[str, Sequence[Written]]) -> list[Written]:
    """All puzzles; the last one of each name."""
    return list({puzzle.name: puzzle for puzzles in found.values() for puzzle in puzzles}.values())


def check_fit(checkpoint: pathlib.Path | None, task: Any, puzzles: Mapping[str, Records]) -> None:
    """Raises InputError if a puzzle is larger than the model's training puzzles."""
    largest = task.largest
    for name, records in puzzles.items():
        houses, attributes = (int(numbers.max()) for numbers in sizes_of(records["clues"]))
        num_clues = records["clues"].shape[1]
        if houses > largest.houses or attributes > largest.attributes:
            raise InputError(
                f"{checkpoint} solves up to {size_name(*largest)} (houses x attributes), and {name} is "
                f"{size_name(houses, attributes)}: give a model that was trained on larger puzzles"
            )
        if num_clues > largest.max_clues:
            raise InputError(f"{checkpoint} reads up to {largest.max_clues} clues, {name} has {num_clues}: drop some")


def write_deduction(results: Results, puzzle: Written, records: Records) -> None:
    """Prints the solution, and adds a row with the share of cells that deduction fills in."""
    found = deduce(records["clues"], records["solution"])
    is_cell = records["solution"] >= 0
    share = float((found.filled == records["solution"])[is_cell].mean())
    results.add(method="deduction", dataset=puzzle.name, n=1, solved=float(found.is_solved[0]), cells=share)
    sys.stdout.write(f"\nThe one solution. Deduction alone fills in {share:.0%} of the cells; behind each value when")
    sys.stdout.write("; negative where one had to be looked up before\n" if share < 1 else "\n")
    record = {name: values[0] for name, values in records.items()}
    sys.stdout.write(grid_table(record, record["solution"], found.order[0], puzzle.names) + "\n")


def write_deduction_page(path: pathlib.Path, question: Question) -> None:
    """Writes the page that plays in which order deduction fills in the cells, looked-up ones too."""
    record = record_at(question.records, 0)
    assert question.view is not None
    view = question.view(record)
    steps = np.abs(deduce(question.records["clues"], question.records["solution"]).order).astype(np.int32) - 1
    trace = trace_of(question.records["solution"], steps, mask_id=view.empty)
    write_page(path, question.dataset, view, {"deduction": trace})


def solved_by_size(records: Records, decoded: Decoded) -> list[Row]:
    """The share of puzzles solved, by size."""
    houses, attributes = sizes_of(records["clues"])
    sizes = 10 * houses + attributes
    return solved_by("size", sizes, lambda kind: size_name(*divmod(kind, 10)), decoded.scores["solved"])
