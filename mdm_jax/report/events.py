"""What the page of the viewer shows of decodings, as JSON values: what was written or taken back at which call."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation.order_statistics import describe, kendall_tau, mean_at_reveal
from mdm_jax.evaluation.replay import AtReveal, Trace
from mdm_jax.report.board import Board, Pieces
from mdm_jax.sampling import SampleResult

HEADS = {
    "left_to_rightness": "left-to-rightness",
    "tau_reading": "τ, reading order",
    "relative_jump": "relative jump",
    "relative_dependence": "relative dependence",
    "dependent_pairs": "dependent pairs",
}
MEANINGS = {
    "left-to-rightness": "the share of positions that were the leftmost masked ones when they were revealed; 1 is from "
    "left to right.",
    "τ": "Kendall's τ with another order; 1 is the same, 0 unrelated, -1 the reverse. Positions of one step are not "
    "compared.",
    "relative jump": "the mean distance from one step to the next; 1 is a random order, near 0 always a neighbour.",
    "relative dependence": "how often a step reveals two positions that depend on each other; 1 is a random order.",
    "dependent pairs": "how many pairs of such positions were revealed in one step.",
    "entropy at reveal": "that of the network's prediction when it was revealed, averaged over positions, in nats.",
}
"""What the page says of its statistics."""


class Decoding(NamedTuple):
    """One row of a result, call by call."""

    tokens: NDArray[Any]
    """int [T + 1, L]: before each call, and at the end"""
    is_masked: NDArray[np.bool_]
    """bool [T + 1, L]"""

    @property
    def reveal_step(self) -> NDArray[np.int64]:
        """The call that revealed each position last, int [L]; -1 where it was given, or is masked at the end."""
        is_revealed = self.is_masked[:-1] & ~self.is_masked[1:]
        last = len(is_revealed) - 1 - np.argmax(is_revealed[::-1], axis=0) if len(is_revealed) else 0
        return np.where(is_revealed.any(axis=0) & ~self.is_masked[-1], last, -1)


def page_data(
    results: Mapping[str, SampleResult | Trace],
    *,
    pieces: Pieces,
    board: Board | None = None,
    row: int = 0,
    solution: ArrayLike | Mapping[str, ArrayLike] | None = None,
    at_reveal: Mapping[str, AtReveal] | None = None,
    others: Mapping[str, ArrayLike] | None = None,
    related: ArrayLike | None = None,
) -> dict[str, Any]:
    """What the page shows. Arguments as for `trajectory.write_html`."""
    if not results:
        raise InputError("nothing to show: give at least one result by its name")
    board = board or Board()
    decodings = {str(name): _decoding(name, result, row) for name, result in results.items()}
    length = _check_one_input(decodings)
    _check_board(board, length)
    said = {
        name: AtReveal(*(_vector(f"a row of at_reveal of {name}", np.asarray(field)[row], length) for field in read))
        for name, read in (at_reveal or {}).items()
    }
    panels = []
    for name, decoding in decodings.items():
        given = solution.get(name) if isinstance(solution, Mapping) else solution
        right = None if given is None else _vector(f"the solution of {name}", given, length)
        panels.append(_panel(name, decoding, board.shows(length), right, said.get(name), pieces))
    statistics = _statistics(decodings, panels, said, others or {}, related, board)
    heads = {head.split(",")[0] for head in statistics["heads"]}
    return {
        "length": length,
        "board": {
            "cells": None if board.cells is None else np.asarray(board.cells).tolist(),
            "box": board.box,
            "rows": list(board.rows),
            "columns": list(board.columns),
            "sections": [[name, int(first)] for name, first in board.sections],
        },
        "panels": panels,
        "calls": sorted({event[0] for panel in panels for event in panel["events"]}),
        "parting": _parting(panels),
        "differs": _first_disagreement(decodings, pieces, board.shows(length)),
        "statistics": statistics,
        "meanings": [pair for pair in MEANINGS.items() if pair[0] in heads],
    }


def _decoding(name: object, result: SampleResult | Trace, row: int) -> Decoding:
    is_trace = isinstance(result, Trace)
    fields = [getattr(result, field, None) for field in (("tokens",) if is_trace else ("tokens", "reveal_step"))]
    arrays = [np.asarray(field) for field in fields]
    if any(array.ndim != (3 if is_trace else 2) or array.dtype.kind not in "iu" for array in arrays):
        raise InputError(f"the result {shown(name)} must be a SampleResult of a batch [B, L], or a Trace of one")
    if not 0 <= row < arrays[0].shape[-2]:
        raise InputError(f"row={row}: the result {shown(name)} has {arrays[0].shape[-2]} rows, counted from 0")
    if isinstance(result, Trace):
        return Decoding(result.tokens[:, row], result.is_masked[:, row])
    tokens, steps = (array[row] for array in arrays)
    is_masked = steps >= np.arange(steps.max(initial=-1) + 2)[:, None]
    return Decoding(np.broadcast_to(tokens, is_masked.shape), is_masked)


def _check_one_input(decodings: Mapping[str, Decoding]) -> int:
    first_name, (tokens, is_masked) = next(iter(decodings.items()))
    for name, (other, other_masked) in decodings.items():
        is_same = other.shape[1] == tokens.shape[1] and np.array_equal(is_masked[0], other_masked[0])
        if not is_same or (other[0] != tokens[0])[~is_masked[0]].any():
            raise InputError(f"the results {shown(first_name)} and {shown(name)} are not of one input")
    return int(tokens.shape[1])


def _check_board(board: Board, length: int) -> None:
    if board.cells is not None:
        table = np.asarray(board.cells)
        if table.ndim != 2 or table.dtype.kind not in "iu":
            raise InputError(f"the board's cells must be integers [rows, columns], got {shown(board.cells)}")
    cells = [] if board.cells is None else [cell for cell in np.ravel(board.cells).tolist() if cell >= 0]
    if len(set(cells)) != len(cells) or any(cell >= length for cell in cells):
        raise InputError(f"the board must show each of the {length} positions at most once")
    starts = [first for _, first in board.sections]
    if starts and (starts[0] != 0 or starts != sorted(starts) or starts[-1] > length):
        raise InputError(f"the sections of the board must begin at 0 and go up to {length} at most, got {starts}")


def _vector(what: str, values: ArrayLike, length: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (length,):
        raise InputError(f"{what} must be of shape ({length},), got {array.shape}")
    return array


def _texts(pieces: Pieces, tokens: NDArray[Any], is_shown: NDArray[np.bool_]) -> list[str]:
    """The text of each token that is shown, [L]; of the others any."""
    if callable(pieces):
        texts = list(pieces(np.where(is_shown, tokens, 0)))
        if len(texts) != len(tokens):
            raise InputError(f"pieces gave {len(texts)} texts for {len(tokens)} tokens")
        return [str(text) for text in texts]
    shown_tokens = tokens[is_shown]
    if (outside := shown_tokens[(shown_tokens < 0) | (shown_tokens >= len(pieces))]).size:
        raise InputError(f"token {outside[0]} has no text: pieces has {len(pieces)}")
    return [str(pieces[token]) if here else "" for token, here in zip(tokens.tolist(), is_shown, strict=True)]


def _panel(
    name: str,
    decoding: Decoding,
    is_on_board: NDArray[np.bool_],
    right: NDArray[Any] | None,
    said: AtReveal | None,
    pieces: Pieces,
) -> dict[str, Any]:
    """One decoding: events are [call, position, text or None, whether it is wrong, probability, entropy]."""
    tokens, is_masked = decoding
    is_target, is_shown = is_masked[0] & is_on_board, ~is_masked[-1]
    last, end = decoding.reveal_step, _texts(pieces, tokens[-1], is_shown)
    is_wrong = np.zeros(tokens.shape, bool) if right is None else (tokens != right) & (right >= 0) & is_target
    events: list[list[Any]] = []
    for call in range(len(tokens) - 1):
        before, after = is_masked[call], is_masked[call + 1]
        is_new = ~after & (before | (tokens[call] != tokens[call + 1])) & is_target
        is_final = (tokens[call + 1] == tokens[-1])[is_new].all() and is_shown[is_new].all()
        texts = end if is_final else _texts(pieces, tokens[call + 1], ~after)
        for i in np.flatnonzero(is_new).tolist():
            read = [None, None] if said is None or call != last[i] else [float(field[i]) for field in said]
            events.append([call, i, texts[i], int(is_wrong[call + 1, i]), *read])
        events += [[call, i, None, 0, None, None] for i in np.flatnonzero(~before & after & is_target).tolist()]
    solution = None
    if right is not None:
        words = _texts(pieces, right, right >= 0)
        solution = [text if known >= 0 else None for text, known in zip(words, right.tolist(), strict=True)]
    return {
        "name": name,
        "given": [[i, end[i]] for i in np.flatnonzero(~is_masked[0]).tolist()],
        "targets": int(is_target.sum()),
        "events": events,
        "solution": solution,
        "wrong": int(is_wrong[-1].sum()),
        "missing": np.flatnonzero(is_masked[-1] & is_wrong[-1]).tolist(),
        "corrects": any(event[2] is None for event in events),
    }


def _parting(panels: Sequence[Mapping[str, Any]]) -> int | None:
    """The first call in which not all decodings did the same."""
    done: list[set[Any]] = [{tuple(event[:3]) for event in panel["events"]} for panel in panels]
    return min((call for call, *_ in set.union(*done) - set.intersection(*done)), default=None)


def _first_disagreement(
    decodings: Mapping[str, Decoding], pieces: Pieces, is_on_board: NDArray[np.bool_]
) -> dict[str, Any] | None:
    """Of the positions that end in different tokens, the one that was written first; with what each wrote when."""
    ends = np.stack([np.where(d.is_masked[-1], -1, d.tokens[-1]) for d in decodings.values()])
    steps = np.stack([decoding.reveal_step for decoding in decodings.values()])
    differs = np.flatnonzero((ends != ends[0]).any(axis=0) & is_on_board)
    if not len(differs):
        return None
    first = np.where(steps < 0, np.iinfo(steps.dtype).max, steps).min(axis=0)
    position = int(differs[np.argmin(first[differs])])
    each = [_texts(pieces, d.tokens[-1], ~d.is_masked[-1])[position] for d in decodings.values()]
    said = [[text, int(step) if step >= 0 else None] for text, step in zip(each, steps[:, position], strict=True)]
    return {"position": position, "call": int(first[position]), "said": said}


def _statistics(
    decodings: Mapping[str, Decoding],
    panels: Sequence[Mapping[str, Any]],
    said: Mapping[str, AtReveal],
    others: Mapping[str, ArrayLike],
    related: ArrayLike | None,
    board: Board,
) -> dict[str, Any]:
    """A table with a row for each decoding: heads, and rows of texts."""
    steps = {
        name: np.where(board.shows(len(decoding.reveal_step)), decoding.reveal_step, -1)
        for name, decoding in decodings.items()
    }
    first = next(iter(steps))
    found: list[dict[str, str]] = []
    for (name, order), panel in zip(steps.items(), panels, strict=True):
        line = {"order": name} | ({} if panel["solution"] is None else {"wrong": str(panel["wrong"])})
        numbers = describe(order, others=others, coordinates=board.coordinates(len(order)), related=related)
        line |= {HEADS.get(key, key.replace("tau_", "τ, ")): f"{value:.2f}" for key, value in numbers.items()}
        if len(steps) > 1 and not np.isnan(tau := kendall_tau(order, steps[first])):
            line[f"τ, {first}"] = f"{tau:.2f}"
        if name in said:
            line["entropy at reveal"] = f"{mean_at_reveal(said[name].entropy, order):.3f}"
        found.append(line)
    heads = list(dict.fromkeys(head for line in found for head in line))
    return {"heads": heads, "rows": [[line.get(head, "") for head in heads] for line in found]}
