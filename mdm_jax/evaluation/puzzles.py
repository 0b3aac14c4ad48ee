"""Solving puzzles with a masked diffusion model: the blanks are the masks, what is given is the prompt."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import wilson
from mdm_jax.sampling import sample
from mdm_jax.sharding import fetch, place
from mdm_jax.typing import Denoiser, Oracle, Params, Selector


@dataclasses.dataclass(frozen=True)
class Filled:
    """What the model made of N puzzles of C cells."""

    tokens: np.ndarray
    """int32 [N, C]"""
    reveal_step: np.ndarray
    """int32 [N, C]: network call of the batch that revealed the cell, -1 where given"""
    nfe: float
    """network calls per batch, averaged over batches"""
    seconds: float
    """wall time of all batches, compilation left out"""


def fill_in(
    denoiser: Denoiser,
    params: Params,
    puzzles: np.ndarray,
    *,
    mask_id: int,
    oracle: Oracle,
    selector: Selector,
    temperature: float = 0.0,
    block_length: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: str | None = None,
    mesh: Mesh | None = None,
) -> Filled:
    """Samples the masks of every puzzle, batch by batch; puzzle i has its own key, whatever the batch size.

    Args:
      denoiser: the network.
      params: its parameters.
      puzzles: int [N, C], `mask_id` where blank.
      mask_id: the mask token's id.
      oracle: see `mdm_jax.sample`.
      selector: see `mdm_jax.sample`.
      temperature: see `mdm_jax.sample`.
      block_length: see `mdm_jax.sample`.
      batch_size: puzzles at a time; the last batch is filled up with finished rows, which add no network call.
      seed: of all keys.
      progress: the label of a progress bar; None shows none.
      mesh: where the parameters lie, over which the puzzles are split then; None is the first device.

    Raises:
      InputError: there are no puzzles, or `batch_size` is below 1.
    """
    num = len(puzzles)
    if num < 1 or batch_size < 1:
        raise InputError(f"{num} puzzles, {batch_size} at a time: give at least one of each")
    ways = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-min(batch_size, num) // ways) * ways
    done = np.full((batch_size, puzzles.shape[1]), 1 if mask_id == 0 else 0, puzzles.dtype)
    padded = np.concatenate([puzzles, done[: -num % batch_size]])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(len(padded)))
    key_data = np.asarray(jax.random.key_data(keys))  # as NumPy, which has its place on any mesh

    def solve(rows: slice, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        inputs = (key_data[rows], batch.astype(np.int32))
        row_key_data, x_init = inputs if mesh is None else place(mesh, inputs)
        result = sample(
            denoiser,
            params,
            jax.random.wrap_key_data(jnp.asarray(row_key_data)),
            x_init,
            mask_id=mask_id,
            oracle=oracle,
            selector=selector,
            temperature=temperature,
            block_length=block_length,
        )
        return fetch(result.tokens), fetch(result.reveal_step), int(result.nfe)

    solve(slice(0, batch_size), done)  # compiles, and calls no network
    starts = range(0, len(padded), batch_size)
    begin = time.perf_counter()
    bar = tqdm(starts, desc=progress, unit="batch", disable=progress is None, leave=False, dynamic_ncols=True)
    parts = [solve(slice(i, i + batch_size), padded[i : i + batch_size]) for i in bar]
    seconds = time.perf_counter() - begin
    tokens, reveal_step, nfe = zip(*parts, strict=True)
    return Filled(np.concatenate(tokens)[:num], np.concatenate(reveal_step)[:num], float(np.mean(nfe)), seconds)


def score(
    filled: Filled,
    puzzles: np.ndarray,
    solutions: np.ndarray,
    *,
    mask_id: int,
    is_solved: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, object]:
    """The fields of a result row: how many puzzles were solved, with a 95% Wilson interval, and how fast.

    Args:
      filled: from `fill_in`.
      puzzles: int [N, C].
      solutions: int [N, C].
      mask_id: what a blank holds.
      is_solved: (tokens, puzzles) -> bool [N].
    """
    solved = int(is_solved(filled.tokens, puzzles).sum())
    is_blank = puzzles == mask_id
    return {
        "n": len(puzzles),
        "solved": solved / len(puzzles),
        "solved_ci": list(wilson(solved, len(puzzles))),
        "cells": float((filled.tokens == solutions)[is_blank].mean()) if is_blank.any() else 1.0,
        "nfe": round(filled.nfe, 2),
        "per_second": round(len(puzzles) / filled.seconds, 2),
    }
