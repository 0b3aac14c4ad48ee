"""Draws figures with matplotlib, without a display."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdm_jax.errors import of_extra

with of_extra("experiments"):
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle


Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""name -> (x values, y values) of a line, or (lower ends, upper ends) of its band"""


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def curves(
    path: pathlib.Path,
    series: Series,
    *,
    x_label: str,
    y_label: str,
    title: str,
    log_x: bool = False,
    legend: str = "order",
    lines: Mapping[str, float] | None = None,
    is_share: bool = True,
    intervals: Series | None = None,
) -> None:
    """Saves a figure with one line for each name.

    Args:
      path: the PNG file.
      series: name -> (x values, y values).
      x_label: the label of the x axis, with the unit.
      y_label: the label of the y axis, with the unit.
      title: the title of the figure.
      log_x: whether the x axis is logarithmic.
      legend: the title of the legend.
      lines: name -> x of a vertical line.
      is_share: whether values are shares in [0, 1]. They are drawn in percent, on an axis from 0 to 100. If not, the
        axis starts at 0 and ends at the largest value.
      intervals: name -> (lower ends, upper ends), drawn as bands.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    _lines(axes, series, intervals or {}, 100 if is_share else 1, log_x)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if is_share:
        axes.set_ylim(-2, 102)
    else:
        axes.set_ylim(bottom=0)
    for i, (name, value) in enumerate((lines or {}).items()):
        axes.axvline(value, color="grey", linestyle=("--", ":")[i % 2], label=f"{name}: {value:.4g}")
    axes.legend(title=legend, frameon=False)
    _save(figure, path)


def _lines(axes: Any, series: Series, intervals: Series, scale: float, log_x: bool) -> None:
    """A line for each name, and a band where it has intervals."""
    if log_x:
        axes.set_xscale("log")
    for name, (x, values) in series.items():
        (line,) = axes.plot(x, scale * np.asarray(values), marker="o", markersize=3.5, label=name)
        if name in intervals:
            low, high = (scale * np.asarray(ends) for ends in intervals[name])
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)


def panels(
    path: pathlib.Path, parts: Mapping[str, tuple[Series, Series]], *, x_label: str, title: str, log_x: bool = False
) -> None:
    """Saves a figure with panels side by side, of the same names and x axis, each with its own y axis.

    Args:
      path: the PNG file.
      parts: label of a y axis, with the unit -> (series, intervals), as for `curves`.
      x_label: the label of the x axes, with the unit.
      title: the title of the figure.
      log_x: whether the x axes are logarithmic.
    """
    figure = Figure(figsize=(4.5 * len(parts) + 2, 4), layout="constrained")
    all_axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (y_label, (series, intervals)) in zip(all_axes, parts.items(), strict=True):
        _lines(axes, series, intervals, 1, log_x)
        axes.set(xlabel=x_label, ylabel=y_label)
    figure.legend(*all_axes[0].get_legend_handles_labels(), frameon=False, loc="outside right center")
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def bars(
    path: pathlib.Path,
    series: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    *,
    y_label: str,
    title: str,
    legend: str = "order",
    is_share: bool = True,
) -> None:
    """Saves a figure with groups of bars, one bar for each name. Values are drawn in percent.

    Args:
      path: the PNG file.
      series: name -> (groups, which are the same for all names; values, 1 for 100%).
      y_label: the label of the y axis, with the unit.
      title: the title of the figure.
      legend: the title of the legend.
      is_share: whether the axis runs from 0 to 100%. If not, it fits the bars.
    """
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(series)
    for i, (name, (groups, shares)) in enumerate(series.items()):
        axes.bar(np.arange(len(groups)) + i * width, 100 * np.asarray(shares), width, label=name)
        axes.set_xticks(np.arange(len(groups)) + 0.4 - width / 2, groups, rotation=20)
    axes.set(ylabel=y_label, title=title)
    if is_share:
        axes.set_ylim(0, 102)
    figure.legend(title=legend, frameon=False, loc="outside right upper")  # the bars leave no room inside
    _save(figure, path)


def positions(
    path: pathlib.Path, series: Mapping[str, np.ndarray], num_latents: int, *, y_label: str, title: str
) -> None:
    """Saves a figure with a panel for each name, and in it a bar with its interval for each position.

    Latents and observations have different colours.

    Args:
      path: the PNG file.
      series: name -> mean, lower end and upper end, [L, 3], latents first.
      num_latents: N.
      y_label: the label of the y axis, with the unit.
      title: the title of the figure.
    """
    figure = Figure(figsize=(7.5, 2.2 * len(series) + 0.8), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(series), 1, squeeze=False)[:, 0], series.items(), strict=True):
        indices = np.arange(len(values))
        for kind, part in (("latents", slice(0, num_latents)), ("observations", slice(num_latents, None))):
            mean, low, high = values[part].T
            axes.bar(indices[part], mean, 1.0, yerr=(mean - low, high - mean), ecolor="0.35", label=kind)
        axes.set_title(name, fontsize=10)
    axes.set_xlabel("position")
    axes.legend(frameon=False)
    figure.supylabel(y_label, fontsize=9)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def reveal_order(
    path: pathlib.Path,
    boards: Mapping[str, tuple[np.ndarray, np.ndarray]],
    solution: np.ndarray,
    *,
    box: tuple[int, int],
    title: str,
) -> None:
    """Saves a figure of a square puzzle, filled in under several orders. Colours show the step of each cell.

    Given cells are grey. Wrong digits are red and crossed out.

    Args:
      path: the PNG file.
      boards: name of the order -> (digits [C], reveal_step [C], -1 for givens).
      solution: [C].
      box: the numbers of rows and columns of a box.
      title: the title of the figure.
    """
    size = int(np.sqrt(len(solution)))
    last = max(int(steps.max()) for _, steps in boards.values())
    colors = colormaps["viridis"]
    figure = Figure(figsize=(0.45 * size * len(boards) + 1.2, 0.5 * size + 0.9), layout="constrained")
    panels = figure.subplots(1, len(boards), squeeze=False)[0]
    for axes, (name, (digits, steps)) in zip(panels, boards.items(), strict=True):
        for cell, (digit, step) in enumerate(zip(digits, steps, strict=True)):
            row, column = divmod(cell, size)
            is_given, is_wrong = step < 0, digit != solution[cell]
            shade = (0.88, 0.88, 0.88, 1.0) if is_given else colors(step / max(last, 1))
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="none"))
            is_dark = not is_given and step < 0.6 * last
            color = "red" if is_wrong else "white" if is_dark else "black"
            weight = "bold" if is_given or is_wrong else "normal"
            axes.text(column + 0.5, row + 0.5, str(digit), ha="center", va="center", color=color, fontweight=weight)
            if is_wrong:
                axes.plot([column + 0.15, column + 0.85], [row + 0.85, row + 0.15], color="red", linewidth=1)
        for line in range(size + 1):
            axes.plot([0, size], [line, line], color="black", linewidth=1.8 if line % box[0] == 0 else 0.4)
            axes.plot([line, line], [0, size], color="black", linewidth=1.8 if line % box[1] == 0 else 0.4)
        wrong = int((digits != solution).sum())
        axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"{name}: {'solved' if wrong == 0 else f'{wrong} wrong'}", fontsize=10)
    bar = figure.colorbar(ScalarMappable(Normalize(0, last), colors), ax=list(panels), shrink=0.8)
    bar.set_label("network call that revealed the cell")
    figure.suptitle(title, fontsize=11)
    _save(figure, path)
