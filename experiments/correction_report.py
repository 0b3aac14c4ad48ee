"""What the table of correction prints and draws: each way by network calls, and from easy puzzles to hard ones."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import Row
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.report import heat, plots
from mdm_jax.tasks.sudoku.rules import Rule

COLUMNS = {
    "dataset": "puzzles",
    "loss": "training",
    "way": "decoding",
    "tokens_per_step": "cells a step",
    "nfe": "network calls",
    "solved": "solved",
    "solved_ci": "95% interval over puzzles",
    "by_seed": "by seed",
}
SEARCH = "checked search"
TAIL = "beyond singles"
"""The set of 9x9 puzzles that the rules solve, but not by singles alone."""


def compared(rows: Sequence[Row]) -> list[Row]:
    """A line for each set, loss and way, over all seeds: those of a set by network calls.

    The interval is over puzzles, each of which counts as the share of seeds that solve it: it holds for these networks.
    """
    measured = [row for row in rows if "way" in row and "hardest_rule" not in row]
    names = ("dataset", "loss", "way", "tokens_per_step", "remask_steps", "search_width")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    lines = []
    for key, own in groups.items():
        by_puzzle = np.mean([np.isin(np.arange(row["n"]), row["is_solved"]) for row in own], axis=0)
        line: Row = dict(zip(names, key, strict=True))
        line |= {"nfe": float(np.mean([row["nfe"] for row in own])), "solved": float(by_puzzle.mean())}
        line |= {"solved_ci": list(wilson(by_puzzle.sum(), len(by_puzzle)))}
        lines.append(line | {"by_seed": [row["solved"] for row in own]})
    return sorted(lines, key=lambda line: (line["dataset"], line["nfe"]))


def plot(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws hard puzzles solved against network calls; of the plain loss alone remasking and search."""
    series: dict[str, list[Row]] = {}
    for line in compared(rows):
        if line["dataset"].endswith("hard") and (line["way"] not in ("remasking", SEARCH) or line["loss"] == "plain"):
            series.setdefault(f"{line['loss']}, {line['way']}", []).append(line)
    curves = {
        name: plots.Curve(
            [line["nfe"] for line in own],
            [line["solved"] for line in own],
            *([line["solved_ci"][i] for line in own] for i in (0, 1)),
        )
        for name, own in series.items()
    }
    plots.curves(
        path,
        curves,
        x_label="network calls; those of a search for one puzzle",
        y_label="hard puzzles solved (%)",
        title="Correction at equal network calls, with 95% intervals",
        log_x=True,
    )


def plot_sets(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws the share solved, the mean over seeds, from the easiest puzzles to the hardest: a line for each way.

    Puzzles that the rules solve are parted by the hardest rule that they need, with the calls of their whole set; those
    beyond singles are of the set of this name, where there is one.
    """
    groups: dict[str, dict[str, dict[str, heat.Cell]]] = {}
    for column, ways in _columns(rows).items():
        for (loss, way), own in ways.items():
            solved, calls = (float(np.mean([row[field] for row in own])) for field in ("solved", "calls"))
            groups.setdefault(loss, {}).setdefault(way, {})[column] = heat.Cell(solved, f"{calls:.0f} calls")
    heat.heat_map(
        path,
        list(groups.values()),
        x_label="the hardest rule that puzzles of the normal set need, then whole sets (number of puzzles)",
        title="Sudokus solved, and network calls, by training and decoding",
    )


def _columns(rows: Sequence[Row]) -> dict[str, dict[tuple[str, str], list[Row]]]:
    """Columns, from easy to hard -> (loss, its way) -> a row of each seed, with the calls of its set as `calls`."""
    measured = [row for row in rows if "way" in row]
    has_tail = any(row["dataset"] == TAIL for row in measured)
    found: dict[tuple[int, str], dict[tuple[str, str], list[Row]]] = {}
    calls = 0.0
    for row in measured:
        name, rule = row["dataset"], row.get("hardest_rule")
        calls = row.get("nfe", calls)  # the rows about rules follow on that of their set
        hardness = max(Rule) + 1 if rule is None else Rule[rule.upper()]
        if name.endswith("normal"):
            is_wanted = rule is not None and not (has_tail and hardness > Rule.HIDDEN_SINGLE)
        else:
            is_wanted = (rule is None) != (name == TAIL)
        if is_wanted:
            column = "\n".join([*(rule or name).split("_"), f"({row['n']})"])
            steps = {"a step": row.get("tokens_per_step"), "steps": row.get("remask_steps")}
            words = "".join(f", {number} {word}" for word, number in steps.items() if number)
            key = row["loss"], f"{row['loss']}: {row['way']}{words}"
            found.setdefault((hardness, column), {}).setdefault(key, []).append({**row, "calls": calls})
    return {column: found[hardness, column] for hardness, column in sorted(found, key=lambda key: key[0])}
