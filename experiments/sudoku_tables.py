"""Tables 2 and 5 of the paper, and pictures of the same models, at three scales."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.commands.curves import grouped, plot_training
from experiments.commands.decode import Decoded
from experiments.commands.plans import Plan, Unit
from experiments.commands.reproduce import PUZZLE_COLUMNS, order_unit, print_table, solved_by
from experiments.commands.scales import Budget, Scale, chosen_methods
from experiments.common import Row
from experiments.sudoku import ORDERS, PAPER, Reproduce, Train, check_size
from experiments.trained import load_run
from mdm_jax.data.difficulty import DIFFICULTIES
from mdm_jax.errors import InputError
from mdm_jax.report import bars, plots
from mdm_jax.report.plots import Curve
from mdm_jax.tasks.base import Layout, Records, held_out, take
from mdm_jax.tasks.sudoku.rules import Rule
from mdm_jax.tasks.sudoku.task import Sudoku


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuScale(Scale):
    """The size of the puzzles, the trainings, and the points of the pictures."""

    size: int
    tokens_per_step: tuple[int, ...]
    """the last reveals all cells at once"""
    num_curve: int
    """number of held-out puzzles for each point with several tokens per step"""


SCALES = {
    "smoke": SudokuScale(
        size=6,
        num_train=500,
        num_test=8,
        mdm=Budget(model="sudoku_800k", steps=4, batch_size=16, learning_rate=1e-3, loss="skewed"),
        arm=Budget(model="sudoku_800k", steps=2, batch_size=16, learning_rate=1e-3, optimizer="adamw"),
        tokens_per_step=(1, 36),
        num_curve=8,
    ),
    "small": SudokuScale(
        size=6,
        num_train=60_000,
        num_test=500,
        mdm=Budget(model="sudoku_800k", steps=200, batch_size=128, learning_rate=3e-3),
        arm=Budget(model="sudoku_800k", steps=1600, batch_size=32, learning_rate=3e-3),
        tokens_per_step=(1, 2, 3, 5, 36),
        num_curve=500,
    ),
    "paper": SudokuScale(
        size=9,
        num_train=1_800_000,
        num_test=1_000,
        mdm=Budget(model="sudoku_6m_deep", steps=24_000, batch_size=1024, learning_rate=3e-3, loss="skewed"),
        arm=Budget(model="arm_42m", steps=200_000, batch_size=256, learning_rate=2e-4, optimizer="adamw"),
        tokens_per_step=(1, 2, 3, 4, 6, 8, 12, 81),
        num_curve=300,
    ),
}


def plans(flags: Reproduce) -> list[Plan]:
    """A model for each method, measured on the normal and the hard set."""
    scale, methods = SCALES[flags.scale], chosen_methods(flags.methods)
    size: dict[str, Any] = {"size": scale.size, "num_train": scale.num_train, "num_test": scale.num_test}
    tasks = [Sudoku(**size, difficulty=difficulty, seed=flags.seed) for difficulty in DIFFICULTIES]
    sets = [(task, held_out(task, flags.limit)) for task in tasks]
    made = []
    for method in methods:
        train = Train(
            size=scale.size,
            difficulty="normal",
            data=flags.data,
            seed=flags.seed,
            augment=method == "mdm",  # a symmetry changes the order in which the rules fill in the blanks
            out=flags.out / method,
            **scale.flags(method),
        )
        model, layout = None, train.layout_of(train.task())
        if method == "mdm" and flags.checkpoint is not None:
            model, task, layout = load_run("sudoku", flags.checkpoint)
            check_size(flags.checkpoint, task, scale.size)
            if layout.mask_id is None:
                raise InputError(f"{flags.checkpoint} is autoregressive: give a masked model")
        units = [unit for task, records in sets for unit in units_of(flags, layout, task, records)]
        made.append(Plan(train, layout, units, model))
    return made


def units_of(flags: Reproduce, layout: Layout, task: Sudoku, records: Records) -> list[Unit]:
    """All orders of a model on one set. A masked model also reveals several cells per step on the normal set."""
    dataset, scale = task.title, SCALES[flags.scale]
    unit = functools.partial(order_unit, task, layout, dataset, seed=flags.seed)

    def paper(oracle: str | None) -> float | None:
        return PAPER.get((layout.method, dataset, oracle))

    if layout.mask_id is None:
        return [unit(records, None, paper=paper(None))]

    def by_hardest_rule(decoded: Decoded) -> list[Row]:
        hardest = records["rule"].max(axis=1)
        return solved_by("hardest_rule", hardest, lambda rule: Rule(rule).name.lower(), decoded.scores["solved"])

    is_normal = task.difficulty == "normal"
    parts = by_hardest_rule if is_normal else None
    units = [unit(records, name, paper=paper(name), parts=parts) for name in ORDERS]
    few = take(scale.num_curve, records)
    several = scale.tokens_per_step[1:] if is_normal else ()
    return units + [unit(few, name, k) for k in several for name in ORDERS]


def report(flags: Reproduce, rows: list[Row]) -> list[pathlib.Path]:
    """Prints both tables and draws the pictures."""
    measured = [row for row in rows if "hardest_rule" not in row and "examples" not in row]
    size = SCALES[flags.scale].size
    for number, difficulty in (("2", "normal"), ("5", "hard")):
        title = Sudoku(size=size, difficulty=difficulty, num_train=1, num_test=1).title
        own = [row for row in measured if row["dataset"] == title and row.get("tokens_per_step", 1) == 1]
        print_table(f"Table {number}, {difficulty} puzzles", own, PUZZLE_COLUMNS)
    masked = [row for row in rows if row["method"] == "mdm"]
    pictures = {"tokens-per-step": plot_tokens_per_step, "hardest-rule": plot_hardest_rule, "examples": plot_examples}
    if not any("examples" in row for row in masked):  # the model was given
        del pictures["examples"]
    paths = [flags.out / f"{name}.png" for name in pictures] if masked else []
    for path, draw in zip(paths, pictures.values(), strict=False):
        draw(path, masked)
    return paths


def plot_tokens_per_step(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles solved against cells per step, with the paper's figures where these are of puzzles of its size."""
    own = [row for row in rows if row["dataset"].endswith("normal") and "nfe" in row]
    plots.curves(
        path,
        grouped(sorted(own, key=lambda row: row["tokens_per_step"]), "tokens_per_step", "solved"),
        x_label="cells revealed per step",
        y_label="puzzles of the normal set solved (%)",
        title="One model, four orders, with 95% intervals",
        log_x=True,
        paper={row["oracle"]: (row["paper"], row["paper"]) for row in own if "paper" in row},
        paper_x=1,
    )


def plot_hardest_rule(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles solved by the hardest rule that they need."""
    own = [row for row in rows if "hardest_rule" in row]
    named = [row | {"rule": row["hardest_rule"].replace("_", "\n") + f"\n({row['n']} puzzles)"} for row in own]
    bars.bars(
        path,
        grouped(named, "rule", "solved"),
        x_label="the hardest rule that a person would need",
        y_label="puzzles solved (%)",
        title="By the hardest rule, with 95% intervals",
    )


def plot_examples(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws puzzles solved over training; the method of a model without an order takes the order's place."""
    own = [row | {"oracle": row["method"]} if row["oracle"] == "greedy" else row for row in rows if "examples" in row]
    plot_training(path, own, "solved", y_label="held-out Sudokus solved (%)")


def plot_both_sets(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws Tables 2 and 5: each order on each set, beside the paper's figures."""
    of = {"normal": "", "hard": ", hard set"}
    own = [row for row in rows if row.get("tokens_per_step") == 1 and "paper" in row and row["dataset"] in of]
    named = [row | {"order": f"{plots.words(row['oracle'])}{of[row['dataset']]}"} for row in own]
    bars.dots(
        path,
        {
            "paper": Curve([row["order"] for row in named], [row["paper"] for row in named]),
            "ours": _alone([row | {"oracle": row["order"]} for row in named]),
        },
        x_label="puzzles solved (%)",
        title="Tables 2 and 5, one cell per step, with 95% intervals",
    )


def plot_noise(path: pathlib.Path, rows: Sequence[Row], readings: Sequence[Row]) -> None:
    """Draws Table 2 beside our figures without noise, and with noise on log scores and digits drawn."""
    plain = [row for row in rows if row["dataset"] == "normal" and row.get("tokens_per_step") == 1 and "paper" in row]
    with_noise = {"decoder": "strict", "values": "drawn", "noise": "annealed", "score": "log"}
    without = with_noise | {"noise": "none", "score": "-"}  # the random order, which noise makes no less random
    noisy = [
        row
        for row in readings
        if all(row[name] == value for name, value in (without if row["oracle"] == "random" else with_noise).items())
    ]
    series = {
        "paper": Curve([row["oracle"] for row in plain], [row["paper"] for row in plain]),
        "ours, no noise, likeliest digit": _alone(plain),
        "ours, noise on log scores, digit drawn": _alone(noisy),
    }
    bars.dots(
        path,
        series,
        x_label="puzzles of the normal set solved (%)",
        title="9x9 Sudoku (Table 2), one model, three orders, with 95% intervals",
    )


WAYS = {
    "likeliest": "best of N",
    "stable": "stable answers",
    "symmetric": "vote of symmetric forms",
    "average": "mean of symmetric forms",
}
"""What the choices among proposals are called in figures."""


def _way(row: Row) -> str:
    """How the calls of a row are spent."""
    if row.get("enough") is not None:
        return "symmetric forms until one fits itself"
    way = WAYS.get(row.get("choose") or "", "beam search")
    way = f"{way.removeprefix('vote of ')}, checked" if row.get("check") else way
    return f"{way}, threshold" if row.get("selector", "").startswith("Threshold") else way


def plot_planning(path: pathlib.Path, *files: Sequence[Row]) -> None:
    """Draws puzzles solved against network calls, for each way to spend them; a file holds the rows of one way."""
    rows = [row | {"way": _way(row), "nfe": round(row["nfe"])} for file in files for row in file]
    plots.curves(
        path,
        grouped(sorted(rows, key=lambda row: row["nfe"]), "nfe", "solved", by="way"),
        x_label="network calls of a batch; with a threshold, of a puzzle alone",
        y_label="hard puzzles solved (%)",
        title="More network calls, the same 6M weights, with 95% intervals",
        log_x=True,
    )


def _alone(rows: Sequence[Row]) -> Curve:
    """The share solved in each order, as one series."""
    return grouped([row | {"all": ""} for row in rows], "oracle", "solved", by="all")[""]
