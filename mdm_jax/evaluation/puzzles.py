"""Decodes many sequences in batches, and summarises their scores."""

import dataclasses
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mdm_jax.errors import InputError, NotFiniteError, one_line
from mdm_jax.evaluation.intervals import mean_interval, wilson
from mdm_jax.progress import Bar
from mdm_jax.sampling import Decode
from mdm_jax.sharding import fetch, place


@dataclasses.dataclass(frozen=True)
class Filled:
    """N decoded sequences."""

    tokens: np.ndarray
    """int32 [N, L]"""
    reveal_step: np.ndarray
    """int32 [N, L]: the network call of the batch that revealed each token, -1 for given tokens"""
    nfe: float
    """network calls per batch, averaged over batches"""
    seconds: float
    """wall time of all batches, without compilation"""


def fill_in(
    decode: Decode,
    x_init: np.ndarray,
    *,
    padding: np.ndarray,
    work: np.ndarray | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: str | None = None,
    mesh: Mesh | None = None,
) -> Filled:
    """Decodes sequences batch by batch. Each sequence has its own key, whatever the batch size.

    Args:
      decode: fills in a batch, such as `functools.partial(mdm_jax.sample, denoiser, params, mask_id=0)`.
      x_init: int [N, L], the sequences to start from.
      padding: int [L], a finished sequence. It fills up the last batch, and the program is compiled with it.
      work: [N], the work in each sequence, such as its number of masks. Sequences of similar work share a batch, so few
        of them finish long before the others. None keeps their order. The tokens do not depend on it.
      batch_size: the number of sequences in a batch.
      seed: the seed of all keys.
      progress: the label of a progress bar; None shows none.
      mesh: the mesh of the parameters, over which batches are split; None is the first device.

    Raises:
      InputError: there are no sequences, or `batch_size` is below 1.
      NotFiniteError: the network's predictions are not finite.
    """
    num = len(x_init)
    if num < 1 or batch_size < 1:
        raise InputError(f"{num} sequences, {batch_size} at a time: give at least one of each")
    num_shards = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-min(batch_size, num) // num_shards) * num_shards
    idle = np.repeat(padding[None].astype(x_init.dtype), batch_size, axis=0)
    order = np.arange(num) if work is None else np.argsort(work, kind="stable")
    padded = np.concatenate([x_init[order], idle[: -num % batch_size]])
    numbers = np.concatenate([order, np.arange(num, len(padded))])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
    key_data = np.asarray(jax.random.key_data(keys))  # NumPy arrays can be placed on any mesh

    def run(rows: slice, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        inputs = (key_data[rows], batch.astype(np.int32))
        row_key_data, start = inputs if mesh is None else place(mesh, inputs)
        result = decode(jax.random.wrap_key_data(jnp.asarray(row_key_data)), jnp.asarray(start))
        if np.isnan(fetch(result.log_prob)).any():
            raise NotFiniteError("the network's predictions are not finite; the parameters may be damaged")
        return fetch(result.tokens), fetch(result.reveal_step), int(result.nfe)

    run(slice(0, batch_size), idle)  # compiles
    starts = range(0, len(padded), batch_size)
    label = None if progress is None else one_line(progress)  # it may hold the name of a file
    begin = time.perf_counter()
    bar = Bar(starts, desc=label, unit="batch", disable=progress is None, leave=False)
    parts = [run(slice(i, i + batch_size), padded[i : i + batch_size]) for i in bar]
    seconds = time.perf_counter() - begin
    tokens, reveal_step, nfe = zip(*parts, strict=True)
    back = np.argsort(order)
    return Filled(np.concatenate(tokens)[back], np.concatenate(reveal_step)[back], float(np.mean(nfe)), seconds)


def summary(scores: Mapping[str, np.ndarray]) -> dict[str, object]:
    """The fields of a result row: the mean of each score, with a 95% interval where the values are independent.

    Args:
      scores: scores by name. [N] holds one value for each answer, boolean or from 0 to 1. Its interval is Wilson's for
        boolean values and the normal one for others. [N, ...] holds one value for each part of an answer, with NaN for
        parts that do not count. The parts of an answer are not independent, so their mean has no interval.
    """
    row: dict[str, object] = {"n": len(next(iter(scores.values())))}
    for name, values in scores.items():
        if values.ndim > 1:
            counted = values[~np.isnan(values)]
            row[name] = float(counted.mean()) if len(counted) else 1.0  # without parts, none is wrong
            continue
        row[name] = float(values.mean())
        is_share = values.dtype == bool
        interval = wilson(int(values.sum()), len(values)) if is_share else np.clip(mean_interval(values), 0, 1).tolist()
        row[f"{name}_ci"] = list(interval)
    return row
