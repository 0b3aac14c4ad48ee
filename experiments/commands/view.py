"""`--viewer FILE.html`: the page that plays the decodings of one record; and the statistics of orders in `evaluate`."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.commands.decode import WAYS, Decoded
from experiments.common import Row, say_written, table
from mdm_jax.errors import InputError
from mdm_jax.evaluation import order_statistics, replay
from mdm_jax.files import make_folder
from mdm_jax.loading import Model
from mdm_jax.report.board import View
from mdm_jax.report.trajectory import write_html
from mdm_jax.sampling import Decode
from mdm_jax.tasks.base import Layout, Records, Task

ROW = ("method", "dataset", "oracle", "selector", "tokens_per_step", *WAYS, "noise", "proposals", "choose")
"""The fields that name a row of the table of orders."""


@dataclasses.dataclass
class Page:
    """Collects the decodings of one record, and writes them as a page.

    Attributes:
      path: the file; None collects and writes nothing.
      title: the head of the page.
      layout: of its sequences.
      records: those that are decoded together.
      view: how an answer to the record is laid out.
      index: which of the records is shown.
      seed: of the decodings.
    """

    path: pathlib.Path | None
    title: str
    layout: Layout
    records: Records
    view: View
    index: int = 0
    seed: int = 0
    traces: dict[str, replay.Trace] = dataclasses.field(default_factory=dict)
    at_reveal: dict[str, replay.AtReveal] = dataclasses.field(default_factory=dict)

    def add(self, name: str, model: Model, decode: Decode, decoded: Decoded, how: Mapping[str, Any]) -> None:
        """Adds a decoding of all records; `model`, `decode` and `how` are those that it was made with.

        What a decoder took back is not in its result, so one that may take back decodes the record once more.
        """
        if self.path is None:
            return
        mask_id = -1 if self.layout.mask_id is None else self.layout.mask_id
        if how.get("remask_steps") is not None:
            trace = self._recorded(model, decode, mask_id)
        else:
            tokens, steps = (array[None, self.index] for array in (decoded.tokens, decoded.reveal_step))
            trace = replay.trace_of(tokens, steps, mask_id=mask_id)
        parts = self.layout.answers(trace.tokens[:, 0]).astype(np.int32)
        self.traces[name] = replay.Trace(parts[:, None], self.view.empty)
        can_replay = self.layout.mask_id is not None and how.get("keep") is None
        if can_replay:
            read = replay.at_reveal(model.denoiser, model.params, trace)
            moved = [self.layout.steps(np.nan_to_num(field, nan=-1.0), trace.tokens[-1]) for field in read]
            self.at_reveal[name] = replay.AtReveal(*(np.where(field < 0, np.nan, field) for field in moved))

    def _recorded(self, model: Model, decode: Any, mask_id: int) -> replay.Trace:
        recorded = replay.Recorded(model.denoiser)
        record = {name: values[self.index : self.index + 1] for name, values in self.records.items()}
        key = jax.random.fold_in(jax.random.key(self.seed), self.index)[None]
        again = functools.partial(decode.func, recorded, *decode.args[1:], **decode.keywords)
        return recorded.trace(again(key, jnp.asarray(self.layout.start(record))), mask_id=mask_id)

    def write(self) -> None:
        """Writes the page, if there is a path, and says where it is."""
        if self.path is None:
            return
        write_page(self.path, self.title, self.view, self.traces, self.at_reveal)
        say_written(self.path)


def write_page(
    path: pathlib.Path,
    title: str,
    view: View,
    traces: Mapping[str, replay.Trace],
    at_reveal: Mapping[str, replay.AtReveal] | None = None,
) -> None:
    """Writes decodings of one record, whose tokens are parts of its answer."""
    write_html(
        path,
        traces,
        pieces=view.pieces,
        board=view.board,
        solution={name: view.solution(trace.tokens[-1, 0]) for name, trace in traces.items()},
        at_reveal=at_reveal,
        others={} if view.order is None else {"rules": view.order},
        related=view.related,
        title=title,
    )


def check_viewer(path: pathlib.Path | None) -> None:
    """Raises InputError, before anything is computed, for a path that no page can be written to."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--viewer {path} must end in .html, so that a browser opens it")
    if path.is_dir():
        raise InputError(f"--viewer {path} is a folder: give a file")
    make_folder(path.parent)


def record_at(records: Records, index: int) -> dict[str, Any]:
    """One of the records."""
    return {name: values[index] for name, values in records.items()}


def order_row(task: Task, records: Records, decoded: Decoded) -> Row:
    """The statistics of the orders in which answers were filled in, averaged over records."""
    described = []
    for i, steps in enumerate(decoded.steps):
        view = task.view(record_at(records, i))
        others = {} if view.order is None else {"rules": view.order}
        coordinates = view.board.coordinates(len(steps))
        options = {"coordinates": coordinates, "related": view.related}
        described.append(order_statistics.describe(steps, others=others, **options))
    return dict(order_statistics.mean_of(described))


def two_tables(rows: Sequence[Row], statistics: Sequence[str]) -> str:
    """The rows as a table of scores, and below it one of the statistics of orders."""
    scores = [{name: value for name, value in row.items() if name not in statistics} for row in rows]
    orders = [
        {name: row[name] for name in (*ROW, *statistics) if name in row}
        for row in rows
        if any(name in row for name in statistics)
    ]
    return table(scores) + (f"\n\nIn which order (means; docs/viewer.md)\n{table(orders)}" if orders else "")
