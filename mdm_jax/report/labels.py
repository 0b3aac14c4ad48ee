"""Names the curves of a figure beside it, each in its colour. Curves that coincide are named in one place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAME = 0.015
"""Curves that differ by at most this share of the axis coincide."""
APART = 0.05
"""A curve is told from the others where it is this share of the axis away from them."""
LINE = 13.0
"""Points from a line of text to the next."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The x, ascending, and the y."""
Drawn = Mapping[str, Curve]
"""By name."""


def coinciding(drawn: Drawn, height: float) -> list[list[str]]:
    """The names in groups: those of one group lie on each other wherever both are; `height` is the axis's."""
    groups: list[list[str]] = []
    for name, curve in drawn.items():
        for group in groups:
            if _distance(curve, drawn[group[0]]) <= SAME * height:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _distance(first: Curve, second: Curve) -> float:
    """The largest difference of two curves over the x that both reach; inf if there is no such x, or only an end."""
    low, high = max(first[0].min(), second[0].min()), min(first[0].max(), second[0].max())
    x = np.concatenate([first[0], second[0]])
    x = x[(x >= low) & (x <= high)]
    if not len(x) or (low == high and len(first[0]) > 1 and len(second[0]) > 1):
        return float("inf")
    return float(np.abs(np.interp(x, *first) - np.interp(x, *second)).max())


def spread(places: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Moves places apart, which ascend, until labels of these heights do not overlap; between two ends, if they fit."""
    found, fit = list(places), sum(heights) <= high - low
    for _ in range(200):
        if found and fit:
            found[0] = max(found[0], low + heights[0] / 2)
            found[-1] = min(found[-1], high - heights[-1] / 2)
        for i in range(len(found) - 1):
            lack = max(0.0, (heights[i] + heights[i + 1]) / 2 - (found[i + 1] - found[i]))
            found[i], found[i + 1] = found[i] - lack / 2, found[i + 1] + lack / 2
    return found


def label_curves(axes: "Axes", drawn: Drawn, groups: Sequence[Sequence[str]], colors: Mapping[str, str]) -> None:
    """Writes each name to the right of the axes, with a line to the last point that tells its curve from the others."""
    bottom, top = axes.get_ylim()
    height = top - bottom
    anchors = {group[0]: _last_apart(drawn, group, groups, height) for group in groups}
    ordered = sorted(groups, key=lambda group: anchors[group[0]][1])
    unit = 72 * axes.bbox.height / axes.figure.dpi / height  # points of one unit of y, about
    heights = [(LINE * len(group) + 3) / unit for group in ordered]
    places = spread([anchors[group[0]][1] for group in ordered], heights, bottom, top)
    for group, place in zip(ordered, places, strict=True):
        x, y = anchors[group[0]]
        axes.annotate(
            "",
            (x, y),
            xytext=(1.025, (place - bottom) / height),
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.55", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
            zorder=1,
        )
        for i, name in enumerate(group):
            axes.annotate(
                f"= {name}" if i else name,
                (1.03, (place - bottom) / height),
                xycoords="axes fraction",
                xytext=(0, LINE * ((len(group) - 1) / 2 - i)),
                textcoords="offset points",
                color=colors[name],
                va="center",
                fontsize=9.5,
                fontweight="bold",
                annotation_clip=False,
            )


def _last_apart(
    drawn: Drawn, group: Sequence[str], groups: Sequence[Sequence[str]], height: float
) -> tuple[float, float]:
    """The end of a curve, or if that does not tell it from the others, the last point that does."""
    x, y = drawn[group[0]]
    others = [drawn[other[0]] for other in groups if other is not group]
    apart = (
        np.min([np.abs(y - np.interp(x, *other)) for other in others], axis=0) if others else np.full(len(x), np.inf)
    )
    far = np.flatnonzero(apart >= APART * height)
    at = int(far[-1]) if apart[-1] < SAME * height and len(far) else -1
    return float(x[at]), float(y[at])
