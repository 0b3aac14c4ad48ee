"""The evaluations of a training, as rows and as a picture."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.common import Row
from mdm_jax.report import plots
from mdm_jax.report.plots import Curve
from mdm_jax.tasks.base import Task
from mdm_jax.training.config import read_config
from mdm_jax.training.metrics import read_metrics


def training_rows(run: pathlib.Path, task: Task, method: str) -> list[Row]:
    """The task's metric in each order, by the number of training examples; no rows if nothing was trained."""
    if not (run / "metrics.jsonl").exists():
        return []
    common = {"method": method, "dataset": task.title}
    rows = rows_over_training(read_metrics(run), task.metric, read_config(run)["batch_size"])
    return [common | row for row in rows]


def rows_over_training(lines: Iterable[Mapping[str, Any]], metric: str, batch_size: int) -> list[Row]:
    """A row for each value of a metric in the lines of metrics.jsonl."""
    prefix = f"{metric}/"
    return [
        {"oracle": name.removeprefix(prefix), "examples": batch_size * line["step"], metric: value}
        for line in lines
        for name, value in line.items()
        if name.startswith(prefix)
    ]


def plot_training(
    path: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    y_label: str,
    paper: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Draws one curve for each order in `training_rows`; `paper` as for `plots.curves`."""
    series = grouped(rows, "examples", metric)
    plots.curves(path, series, x_label="training examples", y_label=y_label, title="Over training", paper=paper)


def grouped(rows: Sequence[Mapping[str, Any]], x: str, y: str, *, by: str = "oracle") -> dict[str, Curve]:
    """Groups rows by order, or by another field: the values of two fields for each, with the intervals of `y`."""
    series = {}
    for name in dict.fromkeys(row[by] for row in rows):
        own = [row for row in rows if row[by] == name]
        ends = [row[f"{y}_ci"] for row in own if f"{y}_ci" in row]
        low, high = ([low for low, _ in ends], [high for _, high in ends]) if len(ends) == len(own) else (None, None)
        series[name] = Curve([row[x] for row in own], [row[y] for row in own], low, high)
    return series
