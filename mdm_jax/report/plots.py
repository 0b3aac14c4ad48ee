"""Figures, drawn with matplotlib without a display."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mdm_jax.errors import of_extra

with of_extra("experiments"):
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def curves(
    path: pathlib.Path,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    log_x: bool = False,
    legend: str = "order",
    lines: Mapping[str, float] | None = None,
    is_share: bool = True,
    intervals: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> None:
    """Saves one line per name, shares in percent.

    Args:
      path: of the PNG.
      series: name -> (x values, shares in [0, 1] or other values).
      x_label: with its unit.
      y_label: with its unit.
      title: what the figure shows.
      log_x: whether the x axis is logarithmic.
      legend: what the names are.
      lines: name -> x, of vertical lines.
      is_share: whether the axis runs from 0 to 100%; if not, from 0 as far as the values do.
      intervals: name -> (lower ends, upper ends), drawn as bands.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    if log_x:
        axes.set_xscale("log")
    for name, (x, shares) in series.items():
        scale = 100 if is_share else 1
        (line,) = axes.plot(x, scale * np.asarray(shares), marker="o", markersize=3.5, label=name)
        if intervals and name in intervals:
            low, high = (scale * np.asarray(ends) for ends in intervals[name])
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if is_share:
        axes.set_ylim(-2, 102)
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    for i, (name, place) in enumerate((lines or {}).items()):
        axes.axvline(place, color="grey", linestyle=("--", ":")[i % 2], label=f"{name}: {place:.4g}")
    axes.legend(title=legend, frameon=False)
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
    """Saves groups of bars, one bar per name in each, shares in percent.

    Args:
      path: of the PNG.
      series: name -> (groups, the same for all names; shares in [0, 1]).
      y_label: with its unit.
      title: what the figure shows.
      legend: what the names are.
      is_share: whether the axis runs from 0 to 100%; if not, as far as the bars do.
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
    figure.legend(title=legend, frameon=False, loc="outside right upper")  # bars leave no room within
    _save(figure, path)


def positions(
    path: pathlib.Path, series: Mapping[str, np.ndarray], num_latents: int, *, y_label: str, title: str
) -> None:
    """Saves a bar with its interval for each position, latents and observations in two colours, a panel per name.

    Args:
      path: of the PNG.
      series: name -> mean, lower and upper end [L, 3], latents first.
      num_latents: N.
      y_label: with its unit.
      title: what the figure shows.
    """
    figure = Figure(figsize=(7.5, 2.2 * len(series) + 0.8), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(series), 1, squeeze=False)[:, 0], series.items(), strict=True):
        places = np.arange(len(values))
        for kind, part in (("latents", slice(0, num_latents)), ("observations", slice(num_latents, None))):
            mean, low, high = values[part].T
            axes.bar(places[part], mean, 1.0, yerr=(mean - low, high - mean), ecolor="0.35", label=kind)
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
    """Saves a square puzzle as filled in under several orders, each cell coloured by the step that revealed it.

    Given cells are grey, wrong digits red and crossed out.

    Args:
      path: of the PNG.
      boards: name of the order -> (digits [C], reveal_step [C], -1 where given).
      solution: [C].
      box: rows and columns of a box.
      title: what the figure shows.
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
