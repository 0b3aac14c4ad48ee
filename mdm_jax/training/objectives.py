"""What training can minimise: losses as the training step takes them, in two parts."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax.denoiser import call, check_tokens
from mdm_jax.losses import draw_subsets, masked_nll, stratified, subset_nll
from mdm_jax.masking import mask_last
from mdm_jax.orders import uniform_order
from mdm_jax.scoring import scored_nll
from mdm_jax.typing import Array, Denoiser, Params

Batch = dict[str, Array]
"""`tokens` int32 [B, L] and `is_prompt` bool [B, L]: the positions that are given."""


class Loss(NamedTuple):
    """A loss in two parts: what is drawn, for the whole batch, and what is computed, for any pairs of its rows."""

    draw: Callable[[Array, Batch], Any]
    """(key, batch) -> all that is random about the loss: a pytree of arrays [B, ...], whose rows may be in any order"""
    nll: Callable[..., Array]
    """(denoiser, params, some rows of what was drawn, from an even one on, *, paired) -> nats per sequence, float32
    [rows]; `paired`: rows 2k and 2k + 1 lie on one device"""


def masked_loss(mask_id: int) -> Loss:
    """The loss that training uses: `subset_loss`, which has the lowest variance."""

    def draw(key: Array, batch: Batch) -> Any:
        return draw_subsets(key, batch["tokens"], mask_id=mask_id, is_prompt=batch["is_prompt"])

    return Loss(draw, partial(subset_nll, mask_id=mask_id))


def skewed_loss(mask_id: int, *, skew: float = 3.0) -> Loss:
    """(L' / n) Σ_{i in M} -log p_theta(x_0^i | x[M]) with n = ⌈L' (1 - u^skew)⌉, u ~ U(0, 1): mostly nearly all masked.

    `subset_loss` draws n evenly. But a random half of an answer gives away far more than the half that is easy to
    infer, which is what a planned order has at that point: what decoding meets is as hard as large n. Any skew has the
    same optimum, p_theta exact for every M; only skew 1 gives the bound on the likelihood.

    Args:
      mask_id: the mask token's id.
      skew: 1 draws n evenly; at 3 the median share that is masked is 7/8.
    """

    def draw(key: Array, batch: Batch) -> Any:
        x_0, is_prompt = check_tokens(batch["tokens"], "tokens"), batch["is_prompt"]
        key_size, key_order = jax.random.split(key)
        num_free = (~is_prompt).sum(axis=-1, dtype=jnp.int32)
        share = 1 - stratified(key_size, x_0.shape[0]) ** skew
        size = jnp.clip(jnp.ceil(share * num_free.astype(jnp.float32)).astype(jnp.int32), 1, num_free)
        order = uniform_order(key_order, *x_0.shape)
        _, is_masked = mask_last(x_0, order, num_free - size, mask_id=mask_id, is_prompt=is_prompt)
        return x_0, is_masked, num_free

    def nll(denoiser: Denoiser, params: Params, drawn: Any, *, paired: bool = True) -> Array:
        del paired
        x_0, is_masked, num_free = drawn
        nats = masked_nll(denoiser, params, x_0, is_masked, mask_id=mask_id).sum(axis=-1)
        return nats * num_free / jnp.maximum(is_masked.sum(axis=-1), 1)

    return Loss(draw, nll)


def causal_loss() -> Loss:
    """Σ_i -log p(x^i | x^0, ..., x^{i-1}) over the tokens that are not given, for a causal network.

    Nothing precedes position 0, so it is never scored. Give it as prompt: where it is not, the loss per free token
    counts it as one that cost nothing. So give the tokens that a network reads in groups: it predicts none of them.
    """

    def draw(key: Array, batch: Batch) -> Batch:
        return {"tokens": check_tokens(batch["tokens"], "tokens"), "is_prompt": batch["is_prompt"]}

    def nll(denoiser: Denoiser, params: Params, drawn: Batch, *, paired: bool) -> Array:
        tokens, is_scored = drawn["tokens"], ~drawn["is_prompt"][:, 1:]
        output = call(denoiser, params, tokens[:, :-1])
        return scored_nll(output, tokens[:, 1:], is_scored, mask_id=None).sum(axis=-1)

    return Loss(draw, nll)


def reweighted_loss(mask_id: int, *, num_times: int = 20, alpha: float = 0.25, gamma: float = 1.0) -> Loss:
    """The re-weighted loss of Ye et al. 2024 (arXiv:2410.14157), which the paper may have kept: no bound on anything.

        (T - k) Σ_{i masked} α (1 - p_i)^γ (-log p_i),   p_i = p_theta(x_0^i | x_t),   k ~ U{0..T-1}

    where each free token is masked with probability (k + 1) / T. Tokens that the network is sure of count for little
    (the focal factor), and so do examples with many masks (the linear weight). Divided by the share of tokens that is
    masked on average, (T + 1) / 2T, so that it is a mean over masked tokens, as in their program.

    Args:
      mask_id: the mask token's id.
      num_times: T.
      alpha: α.
      gamma: γ.
    """

    def draw(key: Array, batch: Batch) -> Any:
        tokens, is_prompt = batch["tokens"], batch["is_prompt"]
        key_time, key_mask = jax.random.split(key)
        k = jax.random.randint(key_time, tokens.shape[:1], 0, num_times)
        is_masked = jax.random.uniform(key_mask, tokens.shape) < ((k + 1) / num_times)[:, None]
        return tokens, is_masked & ~is_prompt, k

    def nll(denoiser: Denoiser, params: Params, drawn: Any, *, paired: bool = True) -> Array:
        del paired
        tokens, is_masked, k = drawn
        nats = masked_nll(denoiser, params, tokens, is_masked, mask_id=mask_id)
        focal = alpha * jnp.maximum(-jnp.expm1(-nats), 1e-6) ** gamma  # the root of 0 has no gradient
        weight = (num_times - k).astype(jnp.float32) * (2 * num_times / (num_times + 1))
        return weight * (focal * nats).sum(axis=-1)

    return Loss(draw, nll)
