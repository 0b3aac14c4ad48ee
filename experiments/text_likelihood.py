"""Figure 2, right: the likelihood of text under a masked model, along orders ever further from left to right.

Claim (Kim et al. 2025, section 3.3 and C.2.2; 170M parameters, 1,024 rows of 2,048 tokens of SlimPajama): the orders of
a masked model are tasks of different difficulty. In nats per token: 3.171 from left to right, 3.212 with L / 10 random
swaps, 3.245 in a uniform order.

    python -m experiments.text likelihood --checkpoint RUN --limit 64
    python -m experiments.text likelihood --checkpoint RUN --text novel.txt --num-steps 64 --proxy LONGER_RUN
"""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np
from numpy.typing import NDArray

from experiments.common import Results, Row, say_written
from experiments.journal import Journal
from experiments.text import Order, num_swaps
from experiments.text_flags import Likelihood
from experiments.text_held_out import Masked, held_out_rows, load_masked, name_of
from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation import imbalance
from mdm_jax.evaluation.intervals import mean_interval, ratio_interval
from mdm_jax.evaluation.sequence_likelihood import along_order, at_positions, bound
from mdm_jax.loading import identity
from mdm_jax.orders import near_identity_order, uniform_order
from mdm_jax.report import plots
from mdm_jax.training.lock import locked

BOUND = "all (bound)"
PARTS = 16
"""The most points of a curve in the pictures."""
PICTURES = {
    "by_step": ("likelihood.png", "tokens revealed before", "nats of the next token", "Along an order"),
    "by_position": ("errors.png", "position", "squared error of the log-probability (nats²)", "Against the proxy"),
}
"""By the field of a curve: the file, the labels of the axes, and the title."""


def likelihood(flags: Likelihood) -> None:
    """Adds a row for each order, with its difference to the first one, and a row for the bound."""
    with locked(flags.out):
        _likelihood(flags)


def _likelihood(flags: Likelihood) -> None:
    results = Results("text", "likelihood", out=flags.out, seed=flags.seed)
    ours = load_masked(flags)
    proxy = None if flags.proxy is None else load_masked(dataclasses.replace(flags, checkpoint=flags.proxy))
    if proxy is not None and (proxy.mask_id, proxy.words.num_tokens) != (ours.mask_id, ours.words.num_tokens):
        raise InputError(f"{flags.proxy} has other tokens than {flags.checkpoint}: give a model of the same data")
    x_0 = held_out_rows(flags, ours.words, flags.limit, ours.model.config.max_length)
    length = x_0.shape[1]
    orders = {name: orders_of(name, flags.seed, *x_0.shape) for name in flags.orders.split(",")}
    head = {name: str(getattr(flags, name)) for name in ("num_steps", "num_draws", "mask_id", "seed")}
    head |= {"checkpoint": identity(flags.checkpoint), "proxy": str(flags.proxy and identity(flags.proxy))}
    journal = Journal(flags.out, head | {"rows": zlib.crc32(x_0.tobytes())}, None)
    common = {"method": "mdm", "dataset": name_of(flags, ours.model), "length": length, "n": len(x_0)}
    found: dict[str, Row] = {}
    for name, order in orders.items():
        work = functools.partial(_along, flags, name, ours, proxy, x_0, order)
        (found[name],) = journal.rows(f"{name} {zlib.crc32(order.tobytes()):08x}", work)
        results.add(**common, order=name, **_summary(found[name], length), **_difference(name, found, length))
    (bounded,) = journal.rows(BOUND, functools.partial(_bounded, flags, ours, x_0))
    results.add(**common, order=BOUND, **_summary(bounded, length))
    curves = {field: {name: row[field] for name, row in found.items() if field in row} for field in PICTURES}
    results.finish(seconds=journal.seconds, fields={"curves": curves})
    paths = {field: flags.out / PICTURES[field][0] for field in PICTURES if curves[field]}
    for field, path in paths.items():
        plot(path, curves, field)
    say_written(*paths.values())


def orders_of(name: Any, seed: int, num: int, length: int) -> NDArray[np.int32]:
    """An order of a class for each row, int32 [num, length]; that of a row does not depend on their number.

    Raises:
      InputError: there is no such class.
    """
    if name not in get_args(Order):
        raise InputError(f"unknown order {shown(name)}; choose from {', '.join(get_args(Order))}")
    key, swaps = jax.random.key(seed), num_swaps(name, length)
    if swaps is None:
        return np.asarray(uniform_order(key, num, length))
    return np.asarray(near_identity_order(key, num, length, swaps))


def _along(
    flags: Likelihood,
    name: str,
    ours: Masked,
    proxy: Masked | None,
    x_0: NDArray[np.int32],
    order: NDArray[np.int32],
) -> list[Row]:
    """What is kept of an order: the nats of each row, fields of its row, and curves."""
    options: dict[str, Any] = {field: getattr(flags, field) for field in ("num_steps", "batch_size", "seed")}
    found, *others = (
        along_order(each.model.denoiser, each.model.params, x_0, order, mask_id=each.mask_id, progress=label, **options)
        for each, label in ((ours, name), (proxy, f"{name}, proxy"))
        if each is not None
    )
    length = x_0.shape[1]
    row: Row = {"nats": found.nats.tolist(), "error": found.error.tolist(), "fields": {}}
    row["by_step"] = _curve(found.terms, found.steps, np.ones_like(found.terms, bool), length)
    for theirs in others:
        (log_p, is_taken), (log_q, _) = (at_positions(each, order) for each in (found, theirs))
        errors = imbalance.errors(log_p, log_q, is_taken, length)
        assert errors.latents is not None
        mean, *ends = errors.latents
        row["fields"] = {"proxy_nats_per_token": float(theirs.nats.mean() / length)}
        row["fields"] |= {"squared_error": mean, "squared_error_ci": ends}
        places = np.broadcast_to(np.arange(length), is_taken.shape)
        row["by_position"] = _curve((log_p - log_q) ** 2, places, is_taken, length)
    return [row]


def _bounded(flags: Likelihood, ours: Masked, x_0: NDArray[np.int32]) -> list[Row]:
    """The same of the bound, without curves."""
    options: dict[str, Any] = {field: getattr(flags, field) for field in ("num_draws", "batch_size", "seed")}
    found = bound(ours.model.denoiser, ours.model.params, x_0, mask_id=ours.mask_id, progress="bound", **options)
    return [{"nats": found.nats.tolist(), "error": found.error.tolist(), "fields": {}}]


def _curve(
    values: NDArray[np.floating], places: NDArray[np.integer], is_taken: NDArray[np.bool_], length: int
) -> list[tuple[float, ...]]:
    """The mean of the values at places of equal parts of 0..L-1: the part's middle, the mean and its interval.

    All arguments are [rows, K]. Values of one row are not independent, so that the interval is that of the rows.
    """
    num = min(PARTS, length)
    parts = [is_taken & (places * num // length == i) for i in range(num)]
    return [
        ((i + 0.5) / num * length, *ratio_interval(np.where(own, values, 0).sum(axis=1), own.sum(axis=1)))
        for i, own in enumerate(parts)
        if own.any()
    ]


def _summary(found: Row, length: int) -> Row:
    """The fields of a row."""
    nats, error = (np.array(found[name]) / length for name in ("nats", "error"))
    row: Row = {"nats_per_token": float(nats.mean()), "nats_per_token_ci": mean_interval(nats)}
    return row | {"draw_error": float(np.sqrt((error**2).sum()) / len(nats)), **found["fields"]}


def _difference(name: str, found: dict[str, Row], length: int) -> Row:
    """The difference to the first of the orders, row of text by row of text."""
    first = next(iter(found))
    if name == first:
        return {}
    difference = (np.array(found[name]["nats"]) - found[first]["nats"]) / length
    return {f"minus_{first}": float(difference.mean()), f"minus_{first}_ci": mean_interval(difference)}


def plot(path: pathlib.Path, curves: Mapping[str, Mapping[str, Any]], field: str) -> None:
    """Draws a curve for each order: the field `by_step` or `by_position` of the results' `curves`."""
    _, x_label, y_label, title = PICTURES[field]
    series = {name: plots.Curve(*zip(*points, strict=True)) for name, points in curves[field].items()}
    plots.curves(path, series, x_label=x_label, y_label=y_label, title=title, is_share=False)
