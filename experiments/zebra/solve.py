"""One puzzle at a time: its clues in English, and the answer of a model, or of deduction."""

import sys
from collections.abc import Sequence

import numpy as np

from experiments.common import Results, Row, table
from experiments.puzzles.data import Records
from experiments.puzzles.decode import add_row, asked
from experiments.zebra.data import GAME, solved, written
from experiments.zebra.evaluate import load_model
from experiments.zebra.flags import Solve
from mdm_jax.errors import InputError, one_line
from mdm_jax.tasks.zebra import puzzle as zebra
from mdm_jax.tasks.zebra.clues import STRIDE, sizes_of
from mdm_jax.tasks.zebra.english import Attribute, describe_clues


def solve(flags: Solve) -> None:
    """`solve`: clues, grid and steps of each puzzle."""
    results = Results("zebra", "solve", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    puzzles = {puzzle.name: (puzzle, solved([puzzle])) for found in written(flags).values() for puzzle in found}
    if not puzzles:
        raise InputError("give a puzzle: --riddle fish, or files with --puzzles")
    records_of = {name: records for name, (_, records) in puzzles.items()}
    loaded = None if flags.checkpoint is None else load_model(flags.checkpoint, records_of)
    for name, (puzzle, records) in puzzles.items():
        names = puzzle.names
        lines = describe_clues(puzzle.clues, names) + ([puzzle.question] if puzzle.question else [])
        sys.stdout.write(f"\n{one_line(name)}\n" + "".join(f"  {line}\n" for line in lines))
        if loaded is None:
            _write_deduction(results, name, records, names)
            continue
        model, layout, _ = loaded
        for order, decode, how in asked(flags, model, layout, oracles, selector):
            filled = add_row(results, GAME, layout, decode, records, {"dataset": name, **how}, seed=flags.seed)
            grid, solution = filled.tokens[0], records["solution"][0]
            wrong = int((grid != solution).sum())
            verdict = "right" if zebra.is_solved(grid[None], records["clues"])[0] else f"{wrong} cells wrong"
            sys.stdout.write(f"\norder {order}: {verdict}. Behind each value the step at which it was filled in")
            sys.stdout.write("; ? marks the wrong ones\n" if wrong else "\n")
            sys.stdout.write(grid_table(records, grid, filled.reveal_step[0] + 1, names) + "\n")
    results.finish()


def _write_deduction(results: Results, name: str, records: Records, names: Sequence[Attribute]) -> None:
    """The one solution, and how far a person gets without guessing."""
    from mdm_jax.tasks.zebra.deduction import deduce

    found = deduce(records["clues"], records["solution"])
    is_cell = GAME.is_asked(records)
    share = float((found.filled == records["solution"])[is_cell].mean())
    results.add(method="deduction", dataset=name, n=1, solved=float(found.is_solved[0]), cells=share)
    sys.stdout.write(f"\nThe one solution. Deduction alone fills in {share:.0%} of the cells; behind each value when")
    sys.stdout.write("; negative where one had to be looked up before\n" if share < 1 else "\n")
    sys.stdout.write(grid_table(records, records["solution"][0], found.order[0], names) + "\n")


def grid_table(records: Records, grid: np.ndarray, steps: np.ndarray, names: Sequence[Attribute]) -> str:
    """A line for each house and a column for each attribute: the value, the step, and ? where it is wrong; - for none.

    Args:
      records: the puzzle, alone.
      grid: int [36], the answer.
      steps: int [36], a number for each cell.
      names: what to call attributes and values.
    """
    houses, attributes = (int(number[0]) for number in sizes_of(records["clues"]))

    def cell(attribute: int, house: int) -> str:
        place = STRIDE * attribute + house
        value = int(grid[place])
        if not 0 <= value < houses:
            return "- ?"  # two values were put into another house
        return (
            f"{names[attribute].values[value]} {steps[place]}{'' if value == records['solution'][0][place] else ' ?'}"
        )

    lines: list[Row] = [
        {"house": house + 1} | {names[a].name: cell(a, house) for a in range(attributes)} for house in range(houses)
    ]
    return table(lines)
