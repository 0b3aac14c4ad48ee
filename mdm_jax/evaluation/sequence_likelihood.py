"""The negative log-likelihood of whole sequences under a masked model: bounded over all orders, or along one order.

    bound       E_{n ~ U{1..L}} E_{|M| = n} (L / n) Σ_{i in M} -log p_theta(x^i | x[M])   from drawn subsets M
    one order   Σ_j -log p_theta(x^π(j) | x[π{j..}])                                      exactly, or from drawn steps

The mean of the second over uniform orders is the first. Draws are stratified: two in each of H parts of the sizes n, or
of the steps j. Two are the fewest from which the error of the estimate can be estimated without bias. The draws of a
sequence depend on the seed and on its number, never on the order: orders see the same steps, so that their differences
are paired. Source: Kim et al. 2025, Eq. 3, Proposition 2.1 and C.2.2.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from mdm_jax.checks import check_mask_id, check_tokens
from mdm_jax.draws import Order, next_of
from mdm_jax.errors import InputError
from mdm_jax.losses import masked_nll, nll
from mdm_jax.orders import check_order
from mdm_jax.progress import Bar
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.typing import Array, Denoiser, Params

Nats = NDArray[np.float64]


class Estimate(NamedTuple):
    """The nats of N sequences, as far as draws tell."""

    nats: Nats
    """float64 [N]"""
    error: Nats
    """float64 [N]: the standard error that the draws leave; 0 where all was counted"""


class AlongOrder(NamedTuple):
    """The nats of N sequences along an order, and what they are the sum of."""

    nats: Nats
    """float64 [N]"""
    error: Nats
    """float64 [N]: the standard error that the drawn steps leave; 0 where all steps were taken"""
    steps: NDArray[np.int64]
    """int [N, S]: the steps j that were taken, from 0, in ascending order"""
    terms: Nats
    """float64 [N, S]: -log p_theta of the token that each of them reveals"""


def bound(
    denoiser: Denoiser,
    params: Params,
    x_0: ArrayLike,
    *,
    mask_id: int,
    num_draws: int = 128,
    batch_size: int = 32,
    seed: int = 0,
    progress: str | None = None,
) -> Estimate:
    """The bound on the negative log-likelihood of each sequence: the mean of its NLL over all orders.

    Args:
      denoiser: the network.
      params: its parameters.
      x_0: int [N, L], without masks.
      mask_id: the mask token's id.
      num_draws: of each sequence, an even number: two subsets for each of num_draws / 2 parts of the sizes.
      batch_size: masked sequences in a network call.
      seed: of the draws.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: the tokens are none, or hold the mask; or an option is off.
    """
    tokens, mask_id = _checked(denoiser, x_0, mask_id, batch_size)
    _check_even("num_draws", num_draws)
    length, parts = tokens.shape[1], num_draws // 2
    budget = length + length // parts + 3  # of a small and a large subset; see `draws.Subset`
    outwards = np.stack([np.arange(parts), num_draws - 1 - np.arange(parts)], axis=-1).reshape(-1)

    def draw(number: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        rng = np.random.default_rng([seed, number])
        shares = (np.arange(parts)[:, None] + rng.random((parts, 2))) / parts
        sizes = 1 + np.minimum((shares * length).astype(int), length - 1).reshape(-1)
        is_masked = rng.permuted(np.tile(np.arange(length), (num_draws, 1)), axis=1) < sizes[:, None]
        return np.tile(tokens[number], (num_draws, 1)), is_masked[outwards]

    score = functools.partial(subset_terms, denoiser, params, mask_id=mask_id, budget=budget)
    found = _by_sequence(score, draw, len(tokens), num_draws, max(batch_size // 2 * 2, 2), progress)
    values = np.empty_like(found)
    values[:, outwards] = found
    return of_pairs(values.reshape(-1, parts, 2), np.full(parts, 1 / parts), np.ones(parts))


def along_order(
    denoiser: Denoiser,
    params: Params,
    x_0: ArrayLike,
    order: ArrayLike,
    *,
    mask_id: int,
    num_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: str | None = None,
) -> AlongOrder:
    """-log p_theta(x; π) of each sequence: exactly, by L masked sequences each, or without bias from fewer.

    Args:
      denoiser: the network.
      params: its parameters.
      x_0: int [N, L], without masks.
      order: int [N, L], π.
      mask_id: the mask token's id.
      num_steps: steps to take of each order, an even number: two in each of num_steps / 2 parts. None, or L or more,
        takes all, as `order_nll` does.
      batch_size: masked sequences in a network call; steps share a call as sequences do.
      seed: of the draws.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: the tokens are none, or hold the mask; the order is none; or an option is off.
    """
    tokens, mask_id = _checked(denoiser, x_0, mask_id, batch_size)
    orders = np.asarray(check_order(jnp.asarray(order), jnp.asarray(tokens)))
    num, length = tokens.shape
    if num_steps is not None:
        _check_even("num_steps", num_steps)
    parts = np.array_split(np.arange(length), min(num_steps or length, length) // 2 or 1)
    takes_all = num_steps is None or num_steps >= length
    steps = np.tile(np.arange(length), (num, 1)) if takes_all else _two_of_each(parts, num, seed)

    def rows(number: int) -> tuple[NDArray[np.integer], ...]:
        repeats = (steps.shape[1], 1)
        return np.tile(tokens[number], repeats), np.tile(orders[number], repeats), steps[number].astype(np.int32)

    score = functools.partial(step_terms, denoiser, params, mask_id=mask_id)
    terms = _by_sequence(score, rows, num, steps.shape[1], batch_size, progress)
    if takes_all:
        return AlongOrder(terms.sum(axis=1), np.zeros(num), steps, terms)
    sizes = np.array([len(part) for part in parts])
    return AlongOrder(*of_pairs(terms.reshape(num, -1, 2), sizes, 1 - 2 / sizes), steps, terms)


def of_pairs(values: Nats, weights: NDArray[np.number], left_out: NDArray[np.number]) -> Estimate:
    """Σ_h weight_h · (the mean of two draws of part h), and its standard error; the variance is without bias.

    Args:
      values: float [N, H, 2], independent draws, or two different members of a finite part.
      weights: [H].
      left_out: [H], the share of a finite part that is not drawn; 1 for independent draws.
    """
    half = weights * np.diff(values, axis=-1)[..., 0] / 2
    nats = (weights * values.mean(axis=-1)).sum(axis=-1)
    return Estimate(nats, np.sqrt((left_out * half**2).sum(axis=-1)))


def at_positions(along: AlongOrder, order: ArrayLike) -> tuple[Nats, NDArray[np.bool_]]:
    """The log p_theta of each position that a taken step reveals, float64 [N, L], and which these are; else 0."""
    places = np.take_along_axis(np.asarray(order), along.steps, axis=1)
    log_p = np.zeros(np.shape(order))
    is_taken = np.zeros(log_p.shape, bool)
    np.put_along_axis(log_p, places, -along.terms, axis=1)
    np.put_along_axis(is_taken, places, True, axis=1)
    return log_p, is_taken


@functools.partial(jax.jit, static_argnums=0, static_argnames=("mask_id", "budget"))
def subset_terms(
    denoiser: Denoiser, params: Params, x_0: Array, is_masked: Array, *, mask_id: int, budget: int | None = None
) -> Array:
    """(L / n) Σ_{i in M} -log p_theta(x^i | x[M]) of each row, float32 [B], with no randomness.

    `budget` bounds the masks of rows 2k and 2k + 1 together, of an even number of rows; None is no bound.
    """
    nats = masked_nll(denoiser, params, x_0, is_masked, mask_id=mask_id, rows=1 if budget is None else 2, budget=budget)
    return nats.sum(axis=-1) * x_0.shape[1] / is_masked.sum(axis=-1)


@functools.partial(jax.jit, static_argnums=0, static_argnames="mask_id")
def step_terms(denoiser: Denoiser, params: Params, x_0: Array, order: Array, step: Array, *, mask_id: int) -> Array:
    """-log p_theta(x^π(j) | x[π{j..}]) of each row at its step j [B], float32 [B], with no randomness."""
    return nll(denoiser, params, next_of(x_0, order, step, None), mask_id=mask_id, draw=Order())


def _checked(denoiser: Denoiser, x_0: ArrayLike, mask_id: int, batch_size: int) -> tuple[NDArray[np.int32], int]:
    """The tokens and the mask's id; InputError for what is none."""
    mask_id = check_mask_id(mask_id, denoiser)
    tokens = np.asarray(check_tokens(x_0, "x_0", denoiser))
    if (tokens == mask_id).any():
        raise InputError(f"x_0 holds the mask token, {mask_id}: give clean sequences")
    check_number("batch_size", batch_size, Range(1, INT32), whole=True)
    return tokens, mask_id


def _check_even(name: str, number: int) -> None:
    check_number(name, number, Range(2, INT32), whole=True)
    if number % 2:
        raise InputError(f"{name} must be even, as two are drawn of each part; got {number}")


def _two_of_each(parts: list[NDArray[np.int64]], num: int, seed: int) -> NDArray[np.int64]:
    """Two different members of each part, for each sequence: int [N, 2H]."""
    rngs = (np.random.default_rng([seed, number]) for number in range(num))
    drawn = [[np.sort(rng.choice(part, 2, replace=False)) for part in parts] for rng in rngs]
    return np.asarray(drawn, np.int64).reshape(num, -1)


def _by_sequence(
    score: Callable[..., Array],
    rows: Callable[[int], tuple[NDArray[np.generic], ...]],
    num: int,
    num_rows: int,
    batch_size: int,
    progress: str | None,
) -> Nats:
    """What `score` gives of the rows of each sequence, float64 [N, R]; all batches have one size, so one program."""
    batch_size = min(batch_size, num * num_rows)
    together = max(batch_size // num_rows, 1)
    found = []
    with Bar(total=num, desc=progress, unit="text", disable=progress is None, leave=False) as bar:
        for first in range(0, num, together):
            numbers = range(first, min(first + together, num))
            fields = [np.concatenate(field) for field in zip(*map(rows, numbers), strict=True)]
            for i in range(0, len(fields[0]), batch_size):
                part = [field[i : i + batch_size] for field in fields]
                full = [np.resize(field, (batch_size, *field.shape[1:])) for field in part]
                found.append(np.asarray(score(*full), np.float64)[: len(part[0])])
            bar.update(len(numbers))
    return np.concatenate(found).reshape(num, num_rows)
