"""Losses on the network's own answers, so that it says something of the tokens that it sees.

Each is a draw with a likelihood of its own. The ordinary loss is part of both; neither bounds the
likelihood. In a step the network is called twice: for masks, and for what it made of them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mdm_jax.blocks import take_positions
from mdm_jax.checks import call
from mdm_jax.draws import Masked, Subset
from mdm_jax.judges import likeliest, quality_logits
from mdm_jax.logits import float_logits, scored_nll
from mdm_jax.losses import nll_of
from mdm_jax.masking import free_positions, free_rank, mask_where
from mdm_jax.orders import uniform_order
from mdm_jax.randomness import one_key
from mdm_jax.typing import Array, Denoiser, Features, Params


class Answered(NamedTuple):
    """What `Filled` draws. Every field is [B, ...]."""

    masked: Masked
    is_free: Array
    """bool [B, L]: the positions that are not given"""


@dataclasses.dataclass(frozen=True)
class Filled:
    """The ordinary loss, and the likelihood of the answer given the network's own, y, at every position.

        L' / |M| · Σ_{i in M} -log p_theta(x_0^i | z)  +  Σ_{i free} -log p_theta(x_0^i | y)

    z is x_0 with the masks M of `Subset`; y is z with the likeliest token at every mask. No gradient
    flows through the choice of y. Source: Schiff et al. 2026 (ProSeCo, arXiv:2602.11590). Deviation:
    there both sums have the weight of the first, with which few masks, and so few errors in y, would
    count most.

    Example: `make_train_step(..., masked_loss(mask_id, Filled()), ...)`, or `--loss filled`.
    """

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Answered:
        """Draws the masks; the key is consumed."""
        masked = Subset()(key, x_0, is_prompt)
        return Answered(masked, free_positions(x_0, is_prompt)[masked.example])

    def nll(self, denoiser: Denoiser, params: Params, drawn: Answered, *, mask_id: int, paired: bool) -> Array:
        """The loss of drawn rows, float32 [B], nats."""
        del paired
        masked, is_free = drawn
        output, nats = _ordinary(denoiser, params, masked, mask_id)
        filled = likeliest(jax.lax.stop_gradient(output), mask_id, masked.is_masked)
        seen = call(denoiser, params, jnp.where(masked.is_masked, filled, masked.x_0))
        return nats + scored_nll(seen, masked.x_0, is_free, mask_id=mask_id).sum(axis=-1)


class Guesses(NamedTuple):
    """What `Quality` draws. Every field is [B, ...]."""

    masked: Masked
    is_guessed: Array
    """bool [B, L]: the masks that the network fills in"""
    uniform: Array
    """float32 [B, L], uniform on [0, 1): by which it draws their tokens"""


@dataclasses.dataclass(frozen=True)
class Quality:
    """The ordinary loss, and the cross-entropy of the quality head at tokens that the network drew.

        λ · L' / |M| · Σ_{i in M} -log p_theta(x_0^i | x_t)  +  L' / k · Σ_{i guessed} H(x_s^i = x_0^i, q_theta^i(x_s))

    x_t has the masks M of `Subset`. x_s is x_t with tokens drawn from p_theta(. | x_t) at k of the
    masks, any of them. The minimum of the second sum is the probability that a token is right, given
    all others. Source: Kim et al. 2025 (PRISM, arXiv:2510.01384); k and λ are theirs for Sudoku.

    The network is of the kind `judged_transformer`, which has the head.

    Example: `make_train_step(..., masked_loss(mask_id, Quality()), ...)`, or `--loss quality`.

    Attributes:
      num_guessed: k.
      ordinary: λ.
    """

    num_guessed: int = 4
    ordinary: float = 5.0

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Guesses:
        """Draws the masks, those that are filled in, and what with; the key is consumed."""
        key_mask, key_order, key_token = jax.random.split(one_key(key), 3)
        masked = Subset()(key_mask, x_0, is_prompt)
        rank = free_rank(uniform_order(key_order, *x_0.shape), masked.is_masked)
        is_guessed = masked.is_masked & (rank < self.num_guessed)
        return Guesses(masked, is_guessed, jax.random.uniform(key_token, x_0.shape))

    def nll(self, denoiser: Denoiser, params: Params, drawn: Guesses, *, mask_id: int, paired: bool) -> Array:
        """The loss of drawn rows, float32 [B], nats."""
        del paired
        masked, is_guessed, uniform = drawn
        output, nats = _ordinary(denoiser, params, masked, mask_id)
        guess = guesses(jax.lax.stop_gradient(output), is_guessed, uniform, self.num_guessed, mask_id)
        x_s = jnp.where(is_guessed, guess, mask_where(masked.x_0, masked.is_masked, mask_id))
        logits = quality_logits(params, call(denoiser, params, x_s))
        is_right = (x_s == masked.x_0).astype(jnp.float32)
        entropy = jnp.where(is_guessed, optax.sigmoid_binary_cross_entropy(logits, is_right), 0).sum(axis=-1)
        num_free = masked.weight * masked.is_masked.sum(axis=-1).astype(jnp.float32)
        return self.ordinary * nats + num_free * entropy / jnp.maximum(is_guessed.sum(axis=-1), 1).astype(jnp.float32)


def guesses(output: Array | Features, is_guessed: Array, uniform: Array, most: int, mask_id: int) -> Array:
    """Tokens drawn from p_theta where `is_guessed`, at most `most` in a row: int32 [B, L], 0 elsewhere.

    The token is the first whose cumulative probability is above `uniform` [B, L].
    """
    length = is_guessed.shape[1]
    positions = jnp.argsort(~is_guessed, axis=-1, stable=True)[:, :most].astype(jnp.int32)
    probs = jax.nn.softmax(float_logits(take_positions(output, positions), mask_id), axis=-1)
    cumulative = jnp.cumsum(probs, axis=-1)
    share = jnp.take_along_axis(uniform, positions, axis=1)[..., None] * cumulative[..., -1:]
    tokens = (cumulative <= share).sum(axis=-1, dtype=jnp.int32)
    is_here = positions[..., None] == jnp.arange(length, dtype=jnp.int32)[None, None]
    return jnp.where(is_guessed, jnp.where(is_here, tokens[..., None], 0).sum(axis=1), 0)


def _ordinary(denoiser: Denoiser, params: Params, masked: Masked, mask_id: int) -> tuple[Any, Array]:
    """The output of the network for the masked rows, and their loss, float32 [B], nats."""
    output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
    return output, nll_of(output, masked, mask_id=mask_id)
