"""The paper's Tables 2 and 5 and what belongs to them, at three scales. Started again, it goes on where it was."""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from experiments.common import Results, Row, table
from experiments.journal import Journal
from experiments.puzzles.data import MaskedLayout, Records, first
from experiments.puzzles.decode import ORACLES
from experiments.puzzles.reproduce import LAYOUTS, Method, beside_the_paper, chosen_methods, solved_by
from experiments.sudoku.data import GAME, dataset_name, test_set
from experiments.sudoku.evaluate import load_model
from experiments.sudoku.flags import Reproduce, Train
from experiments.sudoku.scales import PAPER, SCALES, SudokuScale
from experiments.sudoku.train import plot_sudoku_training, sudoku_training, train_sudoku
from mdm_jax.data.builders import digest
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.evaluation.puzzles import Filled
from mdm_jax.loading import Model
from mdm_jax.report import plots
from mdm_jax.tasks.sudoku import layouts as sudoku_layouts
from mdm_jax.tasks.sudoku import puzzle as sudoku
from mdm_jax.tasks.sudoku.rules import Rule


def reproduce(flags: Reproduce) -> None:
    """`reproduce`: trains what is not trained, measures what is not measured, and prints and draws all of it."""
    results = Results("sudoku", "reproduce", out=flags.out, seed=flags.seed, scale=flags.scale)
    scale, methods = SCALES[flags.scale], chosen_methods(flags.methods)
    given = None if flags.checkpoint is None else load_model(flags.checkpoint, scale.size)
    weights = [] if given is None else jax.tree.leaves(given[0].params)
    head: dict[str, Any] = {
        "scale": flags.scale,
        "seed": flags.seed,
        "limit": flags.limit,
        "checkpoint": str(flags.checkpoint),
    }
    head |= {"settings": dataclasses.asdict(scale)}
    head |= {"weights": digest(*(np.asarray(leaf).tobytes() for leaf in weights))} if given else {}
    journal = Journal(flags.out, head, flags.minutes)
    sets = {
        difficulty: test_set(
            {"size": scale.size, "clues": None, "source": None, "seed": flags.seed, "num_test": scale.num_test},
            difficulty,
        )
        for difficulty in DIFFICULTIES
    }
    for method in methods:
        run = run_of(flags, scale, method, journal, given if method == "mdm" else None)
        for difficulty, records in sets.items():
            for row in rows_of(run, scale, difficulty, first(flags.limit, records)):
                results.add(**row)
        for row in sudoku_training(flags.out / method):
            results.add(**row)
    results.finish(seconds=journal.seconds)
    for number, difficulty in (("2", "normal"), ("5", "hard")):
        dataset = dataset_name(scale.size, difficulty)
        own = [row for row in measured(results.rows) if row["dataset"] == dataset]
        lines = beside_the_paper([row for row in own if row.get("tokens_per_step", 1) == 1])
        sys.stdout.write(f"\nTable {number}, {difficulty} puzzles\n{table(lines)}\n")
    draw(flags.out, results.rows)


def measured(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows about a whole set of puzzles at the end of training."""
    return [row for row in rows if "hardest_rule" not in row and "examples" not in row]


def run_of(
    flags: Reproduce, scale: SudokuScale, method: str, journal: Journal, given: tuple[Model, dict[str, Any]] | None
) -> Method:
    """A method, with the model that is given or one that is to be trained."""
    if given is not None:
        layout = sudoku_layouts.get(given[1]["layout"])
        if not isinstance(layout, MaskedLayout):
            raise InputError(f"{flags.checkpoint} is autoregressive: give a masked model")
        return Method(GAME, layout, journal, flags.seed, lambda: given[0])
    train = Train(
        size=scale.size,
        difficulty="normal",
        data=flags.data,
        seed=flags.seed,
        augment=method == "mdm",  # a symmetry changes the order in which the rules fill in the blanks
        out=flags.out / method,
        **scale.flags(method),
    )
    return Method(GAME, sudoku_layouts.get(LAYOUTS[method]), journal, flags.seed, lambda: train_sudoku(train)[0])


def rows_of(run: Method, scale: SudokuScale, difficulty: str, records: Records) -> list[Row]:
    """The rows of all orders; of a masked model on the normal set also those of several cells per step."""
    dataset, method = dataset_name(scale.size, difficulty), run.layout.method
    if not isinstance(run.layout, MaskedLayout):
        return run.rows(dataset, records, None, paper=PAPER.get((method, dataset, None)))

    def by_hardest_rule(filled: Filled) -> list[Row]:
        is_solved = sudoku.is_solved(filled.tokens, records["puzzle"])
        return solved_by("hardest_rule", records["rule"].max(axis=1), lambda rule: Rule(rule).name.lower(), is_solved)

    is_normal, rows = difficulty == "normal", []
    for oracle in ORACLES:
        paper = PAPER.get((method, dataset, oracle))
        rows += run.rows(dataset, records, oracle, paper=paper, parts=by_hardest_rule if is_normal else None)
    few = first(scale.num_curve, records)
    for k in scale.tokens_per_step[1:] if is_normal else ():
        rows += [row for oracle in ORACLES for row in run.rows(dataset, few, oracle, k)]
    return rows


def draw(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """The pictures: against tokens per step, against training examples, by hardest rule."""
    pictures = []
    series: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ORACLES}
    by_order = [row for row in measured(rows) if row["method"] == "mdm"]
    for row in sorted(by_order, key=lambda row: row["tokens_per_step"]):
        if row["dataset"].endswith("normal"):
            series[row["oracle"]][0].append(row["tokens_per_step"])
            series[row["oracle"]][1].append(row["solved"])
    if any(x for x, _ in series.values()):
        pictures.append(folder / "tokens-per-step.png")
        plots.curves(
            pictures[-1],
            series,
            x_label="cells revealed per step",
            y_label="puzzles of the normal set solved (%)",
            title="One model, four orders",
            log_x=True,
        )
    by_rule: dict[str, tuple[list[str], list[float]]] = {}
    for row in rows:
        if "hardest_rule" in row:
            names, shares = by_rule.setdefault(row["oracle"], ([], []))
            names.append(row["hardest_rule"].replace("_", " "))
            shares.append(row["solved"])
    if by_rule:
        pictures.append(folder / "hardest-rule.png")
        plots.bars(pictures[-1], by_rule, y_label="solved (%)", title="By the hardest rule that a person would need")
    if sudoku_training(folder / "mdm"):
        pictures.append(folder / "examples.png")
        plot_sudoku_training(pictures[-1], folder / "mdm")
    sys.stdout.write("".join(f"{picture}\n" for picture in pictures))
