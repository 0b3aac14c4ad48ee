"""Pictures of square puzzles that were filled in by several orders, still and moving. The style is that of plots."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mdm_jax.errors import of_extra
from mdm_jax.report.plots import BLACK, RED, STYLE, figure_of, save, words

with of_extra("experiments"):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Rectangle
    from PIL import Image

STEPS = LinearSegmentedColormap.from_list("steps", ["#fdf6d8", "#b7dcc9", "#63acbe"])
"""From the first step to the last: lightness falls, and dark digits are readable on all of it."""
GIVEN = "#e2e2e2"


class Board(NamedTuple):
    """A puzzle as an order filled it in."""

    digits: np.ndarray
    """int [C]"""
    steps: np.ndarray
    """int [C]: the step that revealed each cell, -1 for givens"""


def reveal_order(
    path: pathlib.Path, boards: Mapping[str, Board], solution: np.ndarray, *, box: tuple[int, int], title: str
) -> None:
    """Saves a figure of a puzzle, filled in by several orders. Colours show the step of each cell.

    Given cells are grey and bold. Wrong digits are white in a red disc.

    Args:
      path: the PNG file; an SVG file is saved beside it.
      boards: by the name of the order.
      solution: int [C].
      box: the numbers of rows and columns of a box.
      title: the title of the figure.
    """
    with mpl.rc_context(STYLE):
        figure, panels, last = _empty(boards, solution, title)
        for axes, (name, board) in zip(panels, boards.items(), strict=True):
            _draw_board(axes, name, board, solution, box, last=last, until=last)
        save(figure, path)


def animation(
    path: pathlib.Path,
    boards: Mapping[str, Board],
    solution: np.ndarray,
    *,
    box: tuple[int, int],
    title: str,
    milliseconds: int = 180,
    last_milliseconds: int = 5000,
) -> None:
    """Saves a GIF file in which the cells appear step by step; arguments as for `reveal_order`."""
    frames = []
    with mpl.rc_context(STYLE):
        figure, panels, last = _empty(boards, solution, title)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(90)
        for step in (last, *range(-1, last + 1)):  # the first is for the layout, which then stays
            for axes, (name, board) in zip(panels, boards.items(), strict=True):
                _draw_board(axes, name, board, solution, box, last=last, until=step)
            canvas.draw()
            figure.set_layout_engine("none")
            frames.append(Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB"))
    del frames[0]
    palette = frames[-1].quantize(64, method=Image.Quantize.MEDIANCUT)
    paletted = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [1000, *[milliseconds] * (len(paletted) - 2), last_milliseconds]
    paletted[0].save(path, save_all=True, append_images=paletted[1:], duration=times, loop=0, optimize=True)


def _empty(boards: Mapping[str, Board], solution: np.ndarray, title: str) -> tuple[Figure, Sequence[Axes], int]:
    """A figure with a panel for each order and the bar of colours; the panels; the last step."""
    size = int(np.sqrt(len(solution)))
    last = max(int(board.steps.max()) for board in boards.values())
    figure = figure_of((0.42 * size * len(boards) + 1.1, 0.42 * size + 1.0))
    panels: Sequence[Axes] = figure.subplots(1, len(boards), squeeze=False)[0]
    bar = figure.colorbar(ScalarMappable(Normalize(1, last + 1), STEPS), ax=list(panels), shrink=0.85, aspect=25)
    bar.set_label("step that revealed the cell (network calls)")
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure, panels, last


def _draw_board(
    axes: Axes, name: str, board: Board, solution: np.ndarray, box: tuple[int, int], *, last: int, until: int
) -> None:
    """Draws the cells that are revealed up to a step."""
    size = int(np.sqrt(len(solution)))
    axes.clear()
    is_shown = board.steps <= until
    _draw_cells(axes, board, solution, is_shown, last, newest=until)
    for line in range(size + 1):
        axes.plot([0, size], [line, line], color=BLACK, linewidth=1.8 if line % box[0] == 0 else 0.4)
        axes.plot([line, line], [0, size], color=BLACK, linewidth=1.8 if line % box[1] == 0 else 0.4)
    axes.set(xlim=(-0.03, size + 0.03), ylim=(size + 0.03, -0.03), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    wrong = int((board.digits != solution)[is_shown].sum())
    at_end = f"{wrong} wrong" if wrong else "solved"
    axes.set_title(f"{words(name)}: {at_end if is_shown.all() else f'step {until + 1}, {wrong} wrong'}")


def _draw_cells(
    axes: Axes, board: Board, solution: np.ndarray, is_shown: np.ndarray, last: int, *, newest: int
) -> None:
    size = int(np.sqrt(len(solution)))
    for cell in np.flatnonzero(is_shown):
        row, column = divmod(int(cell), size)
        step, is_given = int(board.steps[cell]), board.steps[cell] < 0
        is_wrong = board.digits[cell] != solution[cell]
        color = GIVEN if is_given else STEPS(step / max(last, 1))
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="none"))
        if is_wrong:
            axes.add_patch(Circle((column + 0.5, row + 0.5), 0.38, facecolor="#b33a00", edgecolor="none"))
        if step == newest and newest < last and not is_given:
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor="none", edgecolor=RED, linewidth=2.5, zorder=4))
        axes.text(
            column + 0.5,
            row + 0.53,
            str(board.digits[cell]),
            ha="center",
            va="center",
            color="white" if is_wrong else BLACK,
            fontweight="bold" if is_given or is_wrong else "normal",
            fontsize=11,
        )
