"""Draws a table of shares as a heat map, in the style of `plots`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from mdm_jax.report.plots import BLACK, BLUE, RED, STYLE, figure_of, save, words

SHADES = LinearSegmentedColormap.from_list("shades", ["#f4f8fb", "#9ecae1", BLUE, "#00345f"])
"""From 0 to 100%, from light to dark."""
GAP = 0.3
"""Room between two groups, in rows."""


class Cell(NamedTuple):
    """A share in [0, 1], the small text below it, and whether the cell has a frame."""

    share: float
    note: str = ""
    is_framed: bool = False


def heat_map(
    path: pathlib.Path, groups: Sequence[Mapping[str, Mapping[str, Cell]]], *, x_label: str, title: str
) -> None:
    """Saves a figure with a cell for each row and column, in it its share in percent and its note.

    Args:
      path: the PNG file.
      groups: row -> column -> cell, from the top, with room between two groups. What a row lacks stays empty.
      x_label: the label of the columns.
      title: the title of the figure.
    """
    columns = list(dict.fromkeys(column for group in groups for cells in group.values() for column in cells))
    rows = [(i, name, cells) for i, group in enumerate(groups) for name, cells in group.items()]
    places = [j + GAP * i for j, (i, _, _) in enumerate(rows)]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = figure_of((max(7.5, 2.0 + 0.85 * len(columns)), 1.0 + 0.46 * (places[-1] + 1)))
        axes = figure.add_subplot()
        for place, (_, _, cells) in zip(places, rows, strict=True):
            for column, cell in cells.items():
                _draw_cell(axes, columns.index(column), place, cell)
        axes.set(xlim=(-0.55, len(columns) - 0.45), ylim=(places[-1] + 0.55, -0.55), xlabel=x_label, title=title)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(places, [words(name) for _, name, _ in rows])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        save(figure, path)


def _draw_cell(axes: Axes, x: float, y: float, cell: Cell) -> None:
    """A coloured box with its texts, dark on light and light on dark."""
    face = SHADES(cell.share)
    is_dark = np.dot(face[:3], (0.299, 0.587, 0.114)) < 0.55
    color = "white" if is_dark else BLACK
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
    if cell.is_framed:
        axes.add_patch(Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=RED, linewidth=2, zorder=3))
    axes.annotate(
        f"{100 * cell.share:.1f}%", (x, y), xytext=(0, 5 if cell.note else 0), textcoords="offset points",
        ha="center", va="center", color=color,
    )  # fmt: skip
    axes.annotate(
        cell.note, (x, y), xytext=(0, -8), textcoords="offset points", ha="center", va="center", color=color,
        fontsize=7.5,
    )  # fmt: skip
