"""Draws figures of values by name or by position: bars, and rows of dots, in the style of `plots`."""

import pathlib
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from mdm_jax.report.plots import BLACK, BLUE, OTHERS, RED, STYLE, Curve, figure_of, save, styles_of, words


def bars(
    path: pathlib.Path,
    series: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    title: str,
    is_share: bool = True,
) -> None:
    """Saves a figure with groups of bars, one bar for each name. Values are drawn in percent.

    Args:
      path: the PNG file.
      series: by name; x are the groups, which are the same for all names.
      x_label: the label of the x axis.
      y_label: the label of the y axis, with the unit.
      title: the title of the figure.
      is_share: whether the axis runs from 0 to 100%. If not, it fits the bars.
    """
    with mpl.rc_context(STYLE):
        figure = figure_of((7.5, 4))
        axes = figure.add_subplot()
        width = 0.84 / len(series)
        for i, (name, curve) in enumerate(series.items()):
            y, (color, _) = 100 * np.asarray(curve.y), styles_of(series)[name]
            error = None
            if curve.low is not None and curve.high is not None:
                error = np.maximum(0, [y - 100 * np.asarray(curve.low), 100 * np.asarray(curve.high) - y])
            places = np.arange(len(curve.x)) + (i + 0.5) * width - 0.42
            axes.bar(places, y, width, label=words(name), color=color, yerr=error, ecolor="0.25", error_kw={"lw": 0.8})
            axes.set_xticks(np.arange(len(curve.x)), [str(x) for x in curve.x], fontsize=9)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        axes.grid(axis="x", visible=False)
        if is_share:
            axes.set_ylim(0, 102)
        figure.legend(frameon=False, loc="outside lower center", ncols=min(len(series), 4))
        save(figure, path)


def dots(path: pathlib.Path, series: Mapping[str, Curve], *, x_label: str, title: str) -> None:
    """Saves a figure with a row for each name of x, in it a dot for each series, with its interval and its value.

    Args:
      path: the PNG file.
      series: by name; x are the names of the rows, y shares. One whose name begins with "paper" is drawn hollow.
      x_label: the label of the axis of values, with the unit.
      title: the title of the figure.
    """
    rows = list(dict.fromkeys(name for curve in series.values() for name in curve.x))
    step = 0.72 / len(series)
    with mpl.rc_context(STYLE):
        figure = figure_of((7.5, 1.0 + 0.24 * len(rows) * len(series)))
        axes = figure.add_subplot()
        for i, (name, curve) in enumerate(series.items()):
            is_paper, (color, marker) = name.startswith("paper"), OTHERS[i % len(OTHERS)]
            color, marker = (BLACK, "*") if is_paper else (color, marker)
            for j, row in enumerate(curve.x):
                place, y = rows.index(row) + (i + 0.5) * step - 0.36, 100 * curve.y[j]
                high = y
                if curve.low is not None and curve.high is not None:
                    high = 100 * curve.high[j]
                    axes.plot([100 * curve.low[j], high], [place, place], color=color, linewidth=3, alpha=0.35)
                axes.plot(
                    [y], [place], marker=marker, color=color, markersize=11 if is_paper else 7, linestyle="none",
                    markerfacecolor="white" if is_paper else color, label=None if j else name,
                )  # fmt: skip
                axes.annotate(
                    f"{y:.4g}%", (high, place), xytext=(8, 0), textcoords="offset points", color=color,
                    va="center", fontsize=9,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [words(row) for row in rows])
        axes.set(xlabel=x_label, title=title, xlim=(0, 109), ylim=(len(rows) - 0.5, -0.5))
        axes.set_xticks(range(0, 101, 20))
        axes.grid(axis="y", visible=False)
        axes.hlines(np.arange(1, len(rows)) - 0.5, 0, 109, color="0.85", linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(frameon=False, loc="outside lower center", ncols=len(series))
        save(figure, path)


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
    with mpl.rc_context(STYLE):
        figure = figure_of((7.5, 2.2 * len(series) + 0.8))
        panels = figure.subplots(len(series), 1, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, series.items(), strict=True):
            indices = np.arange(len(values))
            parts = (("latents", RED, slice(0, num_latents)), ("observations", BLUE, slice(num_latents, None)))
            for kind, color, part in parts:
                mean, low, high = values[part].T
                error = (mean - low, high - mean)
                axes.bar(indices[part], mean, 0.9, yerr=error, ecolor="0.25", error_kw={"lw": 0.8}, color=color)
                axes.annotate(
                    kind, (float(indices[part].mean()), 0.97), xycoords=("data", "axes fraction"), color=color,
                    ha="center", va="top", fontweight="bold",
                )  # fmt: skip
            axes.set_title(name)
            axes.grid(axis="x", visible=False)
            axes.margins(x=0.01, y=0.2)
        axes.set_xlabel("position in the sequence, latents first")
        figure.supylabel(y_label, fontsize=10)
        figure.suptitle(title, fontsize=11)
        save(figure, path)
