"""The log-likelihood of continuations: from left to right exactly, or a lower bound over all orders by draws.

    log p(y | x) = Σ_j log p_theta(y_j | x, y_{<j})                                 the order from left to right
                 >= -E_{n ~ U{1..L'}} E_{|M| = n} (L' / n) Σ_{i in M} -log p_theta(y_i | x, y[M])       `subset_loss`

For one token both are the same, one network call. Continuations of one prompt share the calls whose inputs are equal:
choices of a token each cost one together. Source: Kim et al. 2025, Proposition 2.1; Nie et al. 2025, Eq. 6.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import call
from mdm_jax.errors import InputError, shown
from mdm_jax.evaluation.prompts import padded_length
from mdm_jax.logits import scored_nll
from mdm_jax.progress import Bar
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.text.tokenizer import Tokenizer
from mdm_jax.typing import Array, Denoiser, Params

ORDERS = ("all", "left_to_right")
AT_ONCE = 256
"""Continuations whose masked sequences are in memory together."""


class Continuation(NamedTuple):
    """Token ids, and those whose likelihood behind them is wanted."""

    prompt: Sequence[int]
    tokens: Sequence[int]


def continuation(tokenizer: Tokenizer, prompt: str, text: str) -> Continuation:
    """Two texts as token ids: cut where the tokens of the prompt alone end, if those of both together begin so."""
    ids, whole = tokenizer.encode(prompt), tokenizer.encode(prompt + text)
    behind = whole[len(ids) :] if whole[: len(ids)] == ids else []
    return Continuation(ids, behind or tokenizer.encode(text, special=False))


class _Term(NamedTuple):
    """A part of one likelihood: -weight times the nats of scored tokens of a masked sequence."""

    number: int
    """of the continuation"""
    tokens: np.ndarray
    """int32 [L], clean"""
    is_scored: np.ndarray
    """bool [L]"""
    weight: float


def log_likelihoods(
    denoiser: Denoiser,
    params: Params,
    continuations: Sequence[Continuation],
    *,
    mask_id: int,
    pad_id: int | None,
    max_length: int,
    order: str = "all",
    num_draws: int = 128,
    batch_size: int = 8,
    seed: int = 0,
    progress: str | None = None,
) -> list[float]:
    """The log-likelihood of each continuation, in nats; of several tokens in "all" orders, an estimated lower bound.

    Args:
      denoiser: the network.
      params: its parameters.
      continuations: of each at least one token is wanted.
      mask_id: the mask token's id.
      pad_id: hidden by the network, and put behind shorter sequences of a batch; None: only equal lengths share one.
      max_length: the longest sequence that the network takes.
      order: "left_to_right", or "all", which takes `num_draws` draws of what is masked.
      num_draws: of each continuation of several tokens.
      batch_size: masked sequences in a batch.
      seed: of the draws of each continuation, with its place.
      progress: the label of a progress bar; None shows none.

    Raises:
      InputError: a continuation has no tokens, is too long, or holds the mask; or an option is off.
    """
    if order not in ORDERS:
        raise InputError(f"order={shown(order)} is unknown: choose from {', '.join(ORDERS)}")
    for name, number in (("num_draws", num_draws), ("batch_size", batch_size)):
        check_number(name, number, Range(1, INT32), whole=True)
    found = np.zeros(len(continuations))
    with Bar(total=len(continuations), desc=progress, unit="text", disable=progress is None, leave=False) as bar:
        for first in range(0, len(continuations), AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, len(continuations)))
            terms: dict[bytes, list[_Term]] = {}
            for number in numbers:
                _check(number, continuations[number], mask_id, max_length)
                rng = np.random.default_rng([seed, number])
                for row, term in _terms(number, continuations[number], mask_id, order, num_draws, rng):
                    terms.setdefault(row, []).append(term)
            for rows in _batches(terms, batch_size, pad_id):
                own = [terms[row] for row in rows]
                nats = _nats(denoiser, params, rows, own, mask_id, pad_id, max_length, batch_size)
                for of_row, values in zip(own, nats, strict=True):
                    for term, value in zip(of_row, values, strict=True):
                        found[term.number] -= term.weight * value
            bar.update(len(numbers))
    return found.tolist()


def _check(number: int, asked: Continuation, mask_id: int, max_length: int) -> None:
    """InputError unless a continuation is one."""
    length = len(asked.prompt) + len(asked.tokens)
    if not len(asked.tokens) or length > max_length or mask_id in (*asked.prompt, *asked.tokens):
        raise InputError(
            f"continuation {number + 1} has {len(asked.tokens)} tokens behind {len(asked.prompt)}: wanted are one or "
            f"more, no mask ({mask_id}) among them, and {max_length} in all at most"
        )


def _terms(
    number: int, asked: Continuation, mask_id: int, order: str, num_draws: int, rng: np.random.Generator
) -> Iterator[tuple[bytes, _Term]]:
    """The parts of a likelihood, each with its masked sequence; what was drawn twice weighs twice."""
    ids, before = np.asarray([*asked.prompt, *asked.tokens], np.int32), (len(asked.prompt), 0)
    found: dict[bytes, _Term] = {}
    for is_masked, is_scored, weight in _parts(len(asked.tokens), order, num_draws, rng):
        row = np.where(np.pad(is_masked, before), np.int32(mask_id), ids).tobytes()
        weight += found[row].weight if row in found else 0.0
        found[row] = _Term(number, ids, np.pad(is_scored, before), weight)
    yield from found.items()


def _parts(
    length: int, order: str, num_draws: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """What is masked, what is scored, bool [L'] each, and the weight, of every part of a likelihood."""
    places = np.arange(length)
    if order == "left_to_right" or length == 1:
        return [(places >= j, places == j, 1.0) for j in range(length)]
    shares = (rng.random() + np.arange(num_draws) / num_draws) % 1
    parts = []
    for n in (1 + (shares * length).astype(int)).tolist():
        is_masked = rng.permutation(length) < n
        parts.append((is_masked, is_masked, length / n / num_draws))
    return parts


def _batches(terms: dict[bytes, list[_Term]], batch_size: int, pad_id: int | None) -> list[list[bytes]]:
    """The masked sequences in batches, of like length and number of terms."""

    def shape(row: bytes) -> tuple[int, int]:
        return len(terms[row]), len(row)

    kept = [0, 1] if pad_id is None else [0]
    groups: dict[Any, list[bytes]] = {}
    for row in sorted(terms, key=shape):
        groups.setdefault(tuple(shape(row)[i] for i in kept), []).append(row)
    return [rows[i : i + batch_size] for rows in groups.values() for i in range(0, len(rows), batch_size)]


def _nats(
    denoiser: Denoiser,
    params: Params,
    rows: list[bytes],
    terms: list[list[_Term]],
    mask_id: int,
    pad_id: int | None,
    max_length: int,
    batch_size: int,
) -> np.ndarray:
    """The nats of each term, float32 [rows, K]."""
    masked = [np.frombuffer(row, np.int32) for row in rows]
    longest, most = max(map(len, masked)), len(terms[0])
    length = longest if pad_id is None else min(padded_length(longest), max_length)
    x = np.full((batch_size, length), pad_id or 0, np.int32)
    targets, is_scored = np.zeros((batch_size, most, length), np.int32), np.zeros((batch_size, most, length), bool)
    for i, (row, own) in enumerate(zip(masked, terms, strict=True)):
        x[i, : len(row)] = row
        for k, term in enumerate(own):
            targets[i, k, : len(row)], is_scored[i, k, : len(row)] = term.tokens, term.is_scored
    budget = 1 << int(is_scored.sum(axis=-1).max() - 1).bit_length()
    return np.asarray(_scored(denoiser, params, x, targets, is_scored, mask_id, budget))[: len(rows)]


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _scored(
    denoiser: Denoiser, params: Params, x: Array, targets: Array, is_scored: Array, mask_id: int, budget: int
) -> Array:
    """Σ over scored positions of -log p_theta(target | x), float32 [B, K]."""
    output = call(denoiser, params, x)
    options = {"mask_id": mask_id, "budget": budget}
    sums = [scored_nll(output, targets[:, k], is_scored[:, k], **options).sum(axis=-1) for k in range(targets.shape[1])]
    return jnp.stack(sums, axis=-1)
