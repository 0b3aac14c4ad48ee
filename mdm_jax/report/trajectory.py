"""The order viewer: one HTML page that shows in which order the positions of one input were filled in.

The page is one file. It asks for nothing from anywhere, and holds what it shows as JSON.
"""

import html
import importlib.resources
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from mdm_jax.evaluation.replay import AtReveal, Trace
from mdm_jax.files import finite, local_path, make_folder, write_whole
from mdm_jax.report.board import Board, Pieces
from mdm_jax.report.events import page_data
from mdm_jax.sampling import SampleResult

__all__ = ["Board", "to_html", "write_html"]


def write_html(
    path: str | os.PathLike[str],
    results: Mapping[str, SampleResult | Trace],
    *,
    pieces: Pieces,
    board: Board | None = None,
    row: int = 0,
    solution: ArrayLike | Mapping[str, ArrayLike] | None = None,
    at_reveal: Mapping[str, AtReveal] | None = None,
    others: Mapping[str, ArrayLike] | None = None,
    related: ArrayLike | None = None,
    title: str = "In which order",
) -> None:
    """Writes a page that plays one or more decodings of one input, side by side.

    Args:
      path: the file, which is replaced if it is there.
      results: by name, what a sampler gave, or where tokens were taken back, `Recorded.trace` of it.
      pieces: the text of every token id, or a function that gives the text of each of the tokens int [L].
      board: where the positions stand; None for a line that wraps as text does.
      row: which row of the results to show.
      solution: int [L], the right tokens, negative where none is known; or one for each result, by name.
      at_reveal: by name, for the colours by confidence: `replay.at_reveal` of the results.
      others: orders int [L] to compare with, by name, such as that of the rules that solve a puzzle.
      related: bool [L, L], which positions depend on each other directly, for the statistics.
      title: the head of the page.

    Raises:
      InputError: the results are not of one input, an array has another shape, or the file cannot be written.
    """
    place = local_path(path)
    text = to_html(
        results,
        pieces=pieces,
        board=board,
        row=row,
        solution=solution,
        at_reveal=at_reveal,
        others=others,
        related=related,
        title=title,
    )
    make_folder(place.parent)
    write_whole(place, text)


def to_html(results: Mapping[str, SampleResult | Trace], *, title: str = "In which order", **options: Any) -> str:
    """The page as text. Arguments as for `write_html`."""
    files = importlib.resources.files("mdm_jax.report") / "viewer"
    parts = {
        "TITLE": html.escape(" ".join(title.split())),
        "STYLE": (files / "style.css").read_text("utf-8"),
        "SCRIPT": (files / "viewer.js").read_text("utf-8"),
        "DATA": _embedded(page_data(results, **options)),
    }
    page = (files / "page.html").read_text("utf-8")
    return re.sub("@(TITLE|STYLE|SCRIPT|DATA)@", lambda found: parts[found[1]], page)


def _embedded(value: Any) -> str:
    """JSON that no HTML parser ends early: ASCII, without any of < > &."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)
