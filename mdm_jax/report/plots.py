"""Draws curves with matplotlib, without a display. All figures have one style, and are saved as PNG and as SVG.

A name of STYLES has one colour and one marker in all figures. The first colours are those of Okabe and Ito, which
people with any colour vision tell apart. Curves are named where they are, not in a legend.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mdm_jax.errors import of_extra
from mdm_jax.report.labels import coinciding, label_curves

with of_extra("experiments"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

BLUE, SKY, GREEN, ORANGE, RED, PINK, BLACK = (
    *("#0072B2", "#56B4E9", "#009E73", "#E69F00"),
    *("#D55E00", "#CC79A7", "#222222"),
)
"""Okabe and Ito 2008. Orange is darker on paper than yellow, which is left out."""
BROWN, VIOLET, GREY = "#7F5539", "#5E3C99", "#777777"
"""For figures of more curves than that."""
STYLES = {
    "random": (RED, "o"),
    "margin": (BLUE, "s"),
    "top_prob": (SKY, "^"),
    "neg_entropy": (GREEN, "D"),
    "left_to_right": (PINK, "<"),
    "token_prob": (ORANGE, "v"),
    "vanilla": (BLACK, "x"),
    "arm": (ORANGE, "v"),
    "arm_ordered": (PINK, "<"),
    "real text": (GREY, "*"),
}
"""The colour and the marker of a name. Other names take those of OTHERS in turn."""
OTHERS = (
    *((BLUE, "s"), (RED, "o"), (GREEN, "D"), (PINK, "<"), (ORANGE, "v"), (SKY, "^")),
    *((BLACK, "P"), (BROWN, "X"), (VIOLET, "h"), (GREY, "d")),
)
WORDS = {
    "top_prob": "top probability",
    "neg_entropy": "entropy",
    "left_to_right": "left to right",
    "token_prob": "token's probability",
    "arm": "AR, reading order",
    "arm_ordered": "AR, rules' order",
}
"""What names are called in figures."""
ROOM = 45
"""Characters of the labels of ticks that an axis has room for."""
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "lines.markersize": 4.5,
    "svg.hashsalt": "mdm_jax",  # the same figure is the same file
}


class Curve(NamedTuple):
    """Points of a figure, with the ends of their intervals if they have any."""

    x: Sequence[Any]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def words(name: str) -> str:
    """What a name is called in figures."""
    return WORDS.get(name, name)


def figure_of(size: tuple[float, float]) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=size, layout="constrained")


def save(figure: Figure, path: pathlib.Path) -> None:
    """Saves a figure as PNG at `path`, and as SVG beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=150, bbox_inches="tight")
        figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


def curves(
    path: pathlib.Path,
    series: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    title: str,
    log_x: bool = False,
    lines: Mapping[str, float] | None = None,
    is_share: bool = True,
    from_zero: bool = True,
    paper: Mapping[str, tuple[float, float]] | None = None,
    paper_x: float | None = None,
) -> None:
    """Saves a figure with one line for each name, and its intervals as a band.

    Args:
      path: the PNG file.
      series: by name.
      x_label: the label of the x axis, with the unit.
      y_label: the label of the y axis, with the unit.
      title: the title of the figure.
      log_x: whether the x axis is logarithmic.
      lines: name -> x of a vertical line.
      is_share: whether values are shares in [0, 1]. They are drawn in percent, on an axis from 0 to 100. If not, the
        axis ends at the largest value.
      from_zero: whether the axis of values that are no shares starts at 0, not at the smallest value.
      paper: name -> lowest and highest value in the paper, for some of the series.
      paper_x: the x of the paper's values; None for the whole axis.
    """
    scale = 100 if is_share else 1
    drawn = {name: np.asarray(curve.y, float) * scale for name, curve in series.items()}
    with mpl.rc_context(STYLE):
        figure = figure_of((7.5, 4.2))
        axes = figure.add_subplot()
        if log_x:
            axes.set_xscale("log")
        axes.set_ylim(*_limits(drawn, is_share, from_zero))
        styles, height = styles_of(series), np.ptp(axes.get_ylim())
        named = {words(name): (np.asarray(series[name].x, float), y) for name, y in drawn.items()}
        groups = coinciding(named, height)
        below = {name: len(group) - 1 - i for group in groups for i, name in enumerate(group)}
        for name, curve in series.items():
            width = 1.7 + 1.7 * below[words(name)]  # what lies below another curve stays to be seen
            _draw_curve(axes, curve, styles[name], scale, width)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        _set_ticks(axes, series, log_x)
        for name, x in (lines or {}).items():
            axes.axvline(x, color=BLACK, linestyle="--", linewidth=1)
            axes.annotate(
                name, (x, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                va="bottom", fontsize=9,
            )  # fmt: skip
        for name, ends in (paper or {}).items():
            _draw_paper(axes, name, (scale * ends[0], scale * ends[1]), paper_x, styles[name][0])
        label_curves(axes, named, groups, {words(name): color for name, (color, _) in styles.items()})
        save(figure, path)


def _set_ticks(axes: Axes, series: Mapping[str, Curve], log_x: bool) -> None:
    """Ticks at the values of x that were measured, if there is room for them."""
    ticks = sorted({round(x, 9) for curve in series.values() for x in curve.x})
    if log_x:
        axes.set_xticks(_apart(ticks))
    elif sum(len(_tick(x)) + 1 for x in ticks) <= ROOM:
        axes.set_xticks(ticks)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.xaxis.set_minor_locator(NullLocator())


def _apart(ticks: Sequence[float]) -> list[float]:
    """Of values whose labels would lie on each other on a logarithmic axis, the larger ones; they ascend."""
    kept = list(ticks[-1:])
    for x in ticks[-2::-1]:
        room = ROOM * np.log(kept[0] / x) / np.log(ticks[-1] / ticks[0])
        if room > (len(_tick(x)) + len(_tick(kept[0]))) / 2 + 0.5:
            kept.insert(0, x)
    return kept


def _tick(x: float) -> str:
    """The label of a value of x: 0.5, 81, 12,000, 3.2e11."""
    if abs(x) >= 1e7:
        return f"{x:.2g}".replace("e+", "e")
    return f"{x:,.3g}" if x < 999.5 else f"{x:,.0f}"


def _draw_curve(axes: Axes, curve: Curve, style: tuple[str, str], scale: float, width: float) -> None:
    """A line with its points, and its intervals as a band."""
    color, marker = style
    (line,) = axes.plot(curve.x, scale * np.asarray(curve.y), color=color, marker=marker, linewidth=width)
    if curve.low is not None and curve.high is not None:
        low, high = scale * np.asarray(curve.low), scale * np.asarray(curve.high)
        axes.fill_between(curve.x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def panels(
    path: pathlib.Path, parts: Mapping[str, Mapping[str, Curve]], *, x_label: str, title: str, log_x: bool = False
) -> None:
    """Saves a figure with panels side by side, of one x axis, each with its own y axis; a name is one style in all.

    Args:
      path: the PNG file.
      parts: label of a y axis, with the unit -> curves by name.
      x_label: the label of the x axes, with the unit.
      title: the title of the figure.
      log_x: whether the x axes are logarithmic.
    """
    with mpl.rc_context(STYLE):
        figure = figure_of((4.5 * len(parts) + 2, 4))
        styles = styles_of({name: None for series in parts.values() for name in series})
        for axes, (y_label, series) in zip(
            figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True
        ):
            if log_x:
                axes.set_xscale("log")
            for name, curve in series.items():
                _draw_curve(axes, curve, styles[name], 1, 1.7)
            axes.set(xlabel=x_label, ylabel=y_label)
            if log_x:
                _set_ticks(axes, series, log_x)
        lines = [Line2D([], [], color=color, marker=marker) for color, marker in styles.values()]
        figure.legend(lines, list(map(words, styles)), frameon=False, loc="outside right center")
        figure.suptitle(title, fontsize=11)
        save(figure, path)


def _limits(drawn: Mapping[str, np.ndarray], is_share: bool, from_zero: bool) -> tuple[float, float]:
    """The ends of the y axis. Shares that are all high have an axis that begins above 0."""
    least, most = min(float(np.min(y)) for y in drawn.values()), max(float(np.max(y)) for y in drawn.values())
    if not is_share:
        room = 0.06 * (most if from_zero else most - least) or 1.0
        return 0.0 if from_zero else least - room, most + room
    return (10 * (least // 10) - 10.5 if least >= 45 else -2.0), 102.0


def styles_of(names: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The colour and the marker of each name. What has none of its own gets those that no other name has."""
    own = {STYLES[name] for name in names if name in STYLES}
    free = [style for style in OTHERS if style not in own] or list(OTHERS)
    others = (free[i % len(free)] for i in range(len(names)))
    return {name: STYLES.get(name) or next(others) for name in names}


def _draw_paper(axes: Axes, name: str, ends: tuple[float, float], x: float | None, color: str) -> None:
    """Draws the paper's value, or the span of its values, at an x or over the whole axis."""
    low, high = ends
    text = f"paper, {words(name)}: {low:.4g}" + (f" to {high:.4g}%" if high > low else "%")
    if x is None:
        axes.axhspan(low, high, facecolor="none", edgecolor=color, hatch="////", alpha=0.35, linewidth=0.5)
        axes.annotate(
            text, (0.01, high), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
            color=color, fontsize=9,
        )  # fmt: skip
    else:
        axes.plot([x], [low], marker="*", markersize=13, markerfacecolor="white", markeredgecolor=color, zorder=5)
        axes.annotate(
            text, (x, low), xytext=(9, 0), textcoords="offset points", color=color, fontsize=9, va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )  # fmt: skip
