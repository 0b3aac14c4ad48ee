"""The evaluations of a training, as rows and as a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import Row
from mdm_jax.report import plots
from mdm_jax.tasks.base import Task
from mdm_jax.training.config import read_config
from mdm_jax.training.metrics import read_metrics


def training_rows(run: pathlib.Path, task: Task, method: str) -> list[Row]:
    """The task's metric in each order, by the number of training examples; no rows if nothing was trained."""
    if not (run / "metrics.jsonl").exists():
        return []
    batch_size, prefix = read_config(run)["batch_size"], f"{task.metric}/"
    common = {"method": method, "dataset": task.title}
    return [
        common | {"oracle": name.removeprefix(prefix), "examples": batch_size * line["step"], task.metric: value}
        for line in read_metrics(run)
        for name, value in line.items()
        if name.startswith(prefix)
    ]


def plot_training(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], metric: str, *, y_label: str) -> None:
    """Draws one curve for each order in `training_rows`."""
    series = grouped(rows, "examples", metric)
    plots.curves(path, series, x_label="training examples", y_label=y_label, title="Over training")


def grouped(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, tuple[list[Any], list[float]]]:
    """Groups rows by order: the values of two fields for each."""
    series: dict[str, tuple[list[Any], list[float]]] = {}
    for row in rows:
        xs, ys = series.setdefault(row["oracle"], ([], []))
        xs.append(row[x])
        ys.append(row[y])
    return series
