"""What a trained model makes of puzzles: evaluate, solve, export."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.common import Results
from experiments.puzzles.data import MaskedLayout, Records, checked_limit, first
from experiments.puzzles.decode import add_row, asked
from experiments.sudoku.data import DATA_FIELDS, GAME, dataset_name, held_out_task, test_set
from experiments.sudoku.flags import Evaluate, Export, Solve, Train
from experiments.trained import check_network, load_trained
from experiments.training import say
from mdm_jax import loading
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku


def evaluate(flags: Evaluate) -> None:
    """`evaluate`: any oracles, any selector, a checkpoint, and puzzles."""
    results = Results("sudoku", "evaluate", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    model, task = load_model(flags.checkpoint, flags.size)
    layout = sudoku_layouts.get(task["layout"])
    for dataset, found in held_out(flags, task).items():
        records = first(flags.limit, found)
        for name, decode, fields in asked(flags, model, layout, oracles, selector):
            options = {"batch_size": flags.batch_size, "seed": flags.seed, "progress": f"{dataset} {name}"}
            add_row(
                results, GAME, layout, decode, first(flags.limit, records), {"dataset": dataset, **fields}, **options
            )
    results.finish()


def held_out(flags: Evaluate, task: Mapping[str, Any]) -> dict[str, Records]:
    """The puzzles that are asked for, by the name of the set: those of a file, or held-out ones like the run's."""
    size = task["size"]
    if flags.puzzles is not None:
        if flags.difficulty is not None:
            raise InputError("--difficulty is for held-out puzzles, and --puzzles gives others: leave one of them out")
        if flags.source is not None:
            raise InputError("--source is for held-out puzzles, and --puzzles gives others: leave one of them out")
        found = sudoku_files.read_puzzles(flags.puzzles, size=size, limit=checked_limit(flags.limit))
        say(found.how)
        return {flags.puzzles.name: {"puzzle": found.puzzles, "solution": found.solutions}}
    chosen = held_out_task(task, flags.source, flags.limit)
    sets: dict[str, Records] = {}
    for difficulty in [task["difficulty"]] if flags.difficulty is None else flags.difficulty.split(","):
        sets[dataset_name(size, difficulty)] = test_set(chosen, difficulty)
    return sets


def load_model(checkpoint: pathlib.Path, size: int | None) -> tuple[Model, dict[str, Any]]:
    """A trained model, and the puzzles it was trained on; InputError if it is not for grids of `size`."""
    model, task = load_trained(GAME.name, checkpoint, Train, (*DATA_FIELDS, "layout"))
    layout = sudoku_layouts.get(task["layout"])
    wanted = {"vocab_size": layout.num_tokens(task["size"]), "max_length": layout.length(task["size"])}
    check_network(checkpoint, model, causal=not isinstance(layout, MaskedLayout), **wanted)
    if size not in (None, task["size"]):
        raise InputError(f"{checkpoint} solves {task['size']}x{task['size']}, not {size}x{size}; give one that does")
    return model, task


def solve(flags: Solve) -> None:
    """`solve`: the grids, and the step at which each cell was filled in."""
    results = Results("sudoku", "solve", out=flags.out, seed=flags.seed)
    oracles, selector = flags.oracles(), flags.selector()
    if bool(flags.puzzle) == (flags.puzzles is not None):
        raise InputError("give puzzles either on the command line or in a file with --puzzles")
    if flags.puzzles is None:
        parsed = [sudoku_files.parse_puzzle(text, f"puzzle {i + 1}") for i, text in enumerate(flags.puzzle)]
        if len({len(puzzle) for puzzle in parsed}) > 1:
            raise InputError("the puzzles have different sizes; give those of one size")
        puzzles = np.stack(parsed)
    else:
        found = sudoku_files.read_puzzles(flags.puzzles, limit=checked_limit(flags.limit))
        say(found.how)
        puzzles = found.puzzles
    records = first(flags.limit, {"puzzle": puzzles, "solution": sudoku.solve(puzzles)[0]})
    puzzles, solutions = records["puzzle"], records["solution"]
    size = sudoku.size_of(puzzles.shape[1])
    if flags.size not in (None, size):
        raise InputError(f"the puzzles are {size}x{size}, not --size {flags.size}")
    model, task = load_model(flags.checkpoint, size)
    layout = sudoku_layouts.get(task["layout"])
    for name, decode, fields in asked(flags, model, layout, oracles, selector):
        row = {"dataset": f"{size}x{size}", **fields}
        filled = add_row(results, GAME, layout, decode, records, row, seed=flags.seed)
        solved = sudoku.is_solved(filled.tokens, puzzles)
        for i, (tokens, steps, is_right) in enumerate(zip(filled.tokens, filled.reveal_step, solved, strict=True)):
            wrong = int((tokens != solutions[i]).sum())
            verdict = "solved" if is_right else f"not solved, {wrong} cells wrong"
            sys.stdout.write(f"\npuzzle {i + 1}, order {name}: {verdict}\n")
            sys.stdout.write(sudoku_files.format_grid(tokens, size) + "\n")
            sys.stdout.write(f"filled in at step (. = given):\n{format_steps(steps, size)}\n")
    results.finish()


def format_steps(reveal_step: np.ndarray, size: int) -> str:
    """The step of each cell, from 1, as a grid of numbers."""
    cells = ["." if step < 0 else str(step + 1) for step in reveal_step]
    rows = [cells[i : i + size] for i in range(0, size * size, size)]
    return "\n".join(" ".join(cell.rjust(2) for cell in row) for row in rows)


def export(flags: Export) -> None:
    """`export`: weights and config that need no checkpoint library."""
    path = loading.export(flags.checkpoint, flags.out, dtype=flags.dtype)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
