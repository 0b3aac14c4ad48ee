"""The figures of the documentation, each with the function that draws it from a results file."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import (
    aligned_table,
    correction_report,
    hardness,
    imbalance,
    loops_table,
    measured,
    nae_sat_exact,
    nae_sat_schedules,
    nae_sat_table,
    proteins,
    scaling_curves,
    sudoku_parallel,
    sudoku_tables,
    text_genppl,
    text_likelihood,
    zebra_table,
)
from experiments.commands.curves import rows_over_training
from experiments.common import Row
from experiments.report.tables import PROTEINS
from experiments.sudoku_flags import Demo
from experiments.throughput import report as throughput_report
from mdm_jax.report.puzzle_pictures import Board, animation, reveal_order

Draw = Callable[[pathlib.Path], None]


def of_rows(draw: Callable[..., None], name: str, *more: Any, **where: Any) -> Draw:
    """A figure of the rows of a file; further arguments go to `draw` behind them."""
    return lambda path: draw(path, measured.rows(name, **where), *more)


def demo_training() -> list[Row]:
    """The evaluations of the demo's training."""
    lines = (measured.FOLDER / "sudoku-demo-training.jsonl").read_text().splitlines()
    return rows_over_training([json.loads(line) for line in lines], "solved", Demo.batch_size)


def order_picture(draw: Callable[..., None], path: pathlib.Path) -> None:
    """The 9x9 puzzle of the README in two orders, still or moving."""
    decoded = {row["order"]: row for row in measured.record("sudoku-6m-order")["decoded"]}
    boards = {
        name: Board(np.array(decoded[name]["answers"][0]), np.array(decoded[name]["steps"][0]))
        for name in ("random", "margin")
    }
    solution = boards["margin"].digits  # which is right, as the row of the file says
    draw(path, boards, solution, box=(3, 3), title="One puzzle, the same 6M weights, two orders (grey: given)")


def imbalance_positions(path: pathlib.Path) -> None:
    """The errors by position."""
    by_position = json.loads((measured.FOLDER / "imbalance-small-positions.json").read_text())
    imbalance.plot_positions(path, by_position, imbalance.SCALES["small"])


def likelihood_curves(name: str, field: str, path: pathlib.Path) -> None:
    """The likelihood along each order, by step or by position."""
    text_likelihood.plot(path, measured.record(name)["curves"], field)


LOOPED = "sudoku-6m-looped"


def loops_at_9x9(path: pathlib.Path) -> None:
    """The surface of loops by cells a step, of the shipped looped network; below it, the one that it goes on from."""
    numbers = ("one", "two", "four", "eight")
    rows = [row | {"network": "looped"} for k in numbers for row in measured.rows(f"{LOOPED}-{k}")]
    before = [row for k in numbers for row in measured.rows(f"sudoku-6m-long-{k}")]
    rows += [row | {"network": "before, no loops", "num_loops": 1, "passes": row["nfe"]} for row in before]
    loops_table.plot(path, rows, 4)


FIGURES: dict[str, Draw] = {
    "accuracy.png": lambda path: sudoku_tables.plot_examples(path, demo_training()),
    "order-9x9.png": functools.partial(order_picture, reveal_order),
    "order-9x9.gif": functools.partial(order_picture, animation),
    "noise.png": lambda path: of_rows(sudoku_tables.plot_noise, "sudoku-6m", measured.rows("sudoku-readings"))(path),
    "sudoku-tables.png": of_rows(sudoku_tables.plot_both_sets, "sudoku-6m"),
    "sudoku-tokens-per-step.png": of_rows(sudoku_tables.plot_tokens_per_step, "sudoku-6m"),
    "sudoku-hardest-rule.png": of_rows(sudoku_tables.plot_hardest_rule, "sudoku-6m"),
    "sudoku-examples-6x6.png": of_rows(sudoku_tables.plot_examples, "sudoku-small"),
    "nae-sat-training.png": of_rows(nae_sat_table.plot_over_training, "nae_sat-small"),
    "nae-sat-exact.png": of_rows(nae_sat_exact.plot, "nae_sat-exact"),
    "nae-sat-schedules.png": of_rows(nae_sat_schedules.plot, "nae_sat-schedules"),
    "hardness.png": of_rows(hardness.plot, "hardness-small"),
    "scaling.png": of_rows(scaling_curves.plot, "scaling-small"),
    "text-likelihood.png": functools.partial(likelihood_curves, "text-likelihood", "by_step"),
    "text-errors.png": functools.partial(likelihood_curves, "text-likelihood-early", "by_position"),
    "genppl-axes.png": of_rows(text_genppl.plot_axes, "text-genppl"),
    "genppl-front.png": of_rows(text_genppl.plot_front, "text-genppl"),
    "imbalance-positions.png": imbalance_positions,
    "imbalance-latents.png": of_rows(imbalance.plot_latents, "imbalance-small"),
    "sudoku-parallel.png": of_rows(sudoku_parallel.plot, "sudoku-parallel"),
    "correction.png": of_rows(correction_report.plot, "correction-small"),
    "correction-sets.png": of_rows(correction_report.plot_sets, "correction-tuned"),
    "loops.png": of_rows(loops_table.plot, "loops-small", loops_table.SCALES["small"].num_loops),
    "loops-9x9.png": loops_at_9x9,
    "aligned.png": of_rows(aligned_table.plot, "aligned-small"),
    "zebra-training.png": of_rows(zebra_table.plot_over_training, "zebra-small"),
    "zebra-sizes.png": of_rows(zebra_table.plot_sizes, "zebra-small"),
    "throughput-6m.png": of_rows(throughput_report.plot, "throughput-6m", "sudoku_6m"),
}
"""By the name of the file in docs/images. A PNG file has an SVG one beside it."""
PLANNING_FILES = (
    "search-1",
    "search-8",
    "likeliest",
    "stable",
    "symmetric",
    "average",
    "search-2-checked",
    "search-4-checked",
    "search-8-checked",
    "search-16-checked",
    "likeliest-checked",
    "symmetric-checked",
    "enough",
)
PLANNING = [
    name for name in map("sudoku-6m-hard-{}".format, PLANNING_FILES) if (measured.FOLDER / f"{name}.json").exists()
]
"""The ways to spend more network calls on the same puzzles that were measured, by their files."""
FIGURES["planning.png"] = lambda path: sudoku_tables.plot_planning(path, *map(measured.rows, PLANNING))
FIGURES |= {
    f"proteins-{k}.png": of_rows(proteins.plot, name, tokens_per_step=k)
    for name in PROTEINS
    for k in dict.fromkeys(row["tokens_per_step"] for row in measured.rows(name))
}
