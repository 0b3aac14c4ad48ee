"""The training objective L_theta of masked diffusion, in three forms with one expectation.

    L_theta = ∫ |α'_t| / (1 - α_t) E Σ_{i masked} -log p_theta(x_0^i | x_t) dt          `elbo_loss`   (Eq. 1)
            = E_{n ~ U{1..L}} E_{|M| = n} (L / n) Σ_{i in M} -log p_theta(x_0^i | x[M])  `subset_loss` (Proposition 2.1)
            = E_π Σ_j -log p_theta(x_0^π(j) | x[π{j..}])                                 `order_loss`

It bounds the negative log-likelihood from above, and does not depend on the schedule. All losses are per example, in
nats per sequence, float32 [B]; prompt positions are never masked and never scored, and L counts the rest (L'). The one
with the lowest variance is `subset_loss`, which training uses: it scores all masked positions of a subset, where
`order_loss` scores one, and draws the number of masks itself, where `elbo_loss` draws a rate and leaves the number to
chance. Source: Kim et al. 2025, section 2, appendix E; Zheng et al. 2024 (arXiv:2409.02908).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdm_jax.denoiser import (
    call,
    check_mask_id,
    check_targets,
    check_tokens,
    has_unknown_ids,
    known_values,
    vocab_size_of,
)
from mdm_jax.errors import InputError
from mdm_jax.masking import forward_mask, free_positions, free_rank, mask_last, mask_where
from mdm_jax.orders import check_order, inverse, uniform_order
from mdm_jax.randomness import one_key
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.schedules import Schedule, check_schedule
from mdm_jax.scoring import scored_nll
from mdm_jax.typing import Array, Denoiser, Params


def masked_nll(
    denoiser: Denoiser,
    params: Params,
    x_0: Array,
    is_masked: Array,
    *,
    mask_id: int,
    is_scored: Array | None = None,
    rows: int = 1,
    budget: int | None = None,
) -> Array:
    """-log p_theta(x_0^i | x[M]) at the masked positions, 0 elsewhere: float32 [B, L], with no randomness.

    NaN in rows of x_0 with an id that the network has no row for. Of the masked positions only `is_scored` bool [B, L]
    count, if that is given; for `rows` and `budget` see `scored_nll`.
    """
    output = call(denoiser, params, mask_where(x_0, is_masked, mask_id))
    is_scored = is_masked if is_scored is None else is_scored
    nll = scored_nll(output, x_0, is_scored, mask_id=mask_id, rows=rows, budget=budget)
    return jnp.where(has_unknown_ids(x_0, denoiser)[:, None], jnp.nan, nll)


def stratified(key: Array, batch: int) -> Array:
    """(u + i/B) mod 1 with one u for the batch: each row alone is uniform on [0, 1), together they cover it evenly."""
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1


def elbo_loss(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_0: Array,
    *,
    schedule: Schedule,
    mask_id: int,
    is_prompt: Array | None = None,
) -> Array:
    """|α'_t| / (1 - α_t) Σ_{i masked} -log p_theta(x_0^i | x_t) at a random time t.

    t_i = 1 - ((u + i/B) mod 1): uniform on (0, 1] for each row, stratified over the batch.
    Source: Kim et al. 2025, Eq. 1, with the sign that makes it positive.

    Args:
      denoiser: the network.
      params: its parameters.
      key: a typed key; consumed.
      x_0: int32 [B, L], clean tokens.
      schedule: α_t.
      mask_id: the mask token's id.
      is_prompt: bool [B, L]; True is never masked and never scored.

    Returns:
      float32 [B], nats per sequence: an unbiased estimate of L_theta.

    Raises:
      InputError: a shape, a dtype or the mask id is off, or the denoiser's output is.
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    check_schedule(schedule)
    key_time, key_mask = jax.random.split(one_key(key))
    t = 1 - stratified(key_time, x_0.shape[0])
    _, is_masked = forward_mask(key_mask, x_0, t, schedule=schedule, mask_id=mask_id, is_prompt=is_prompt)
    return schedule.elbo_weight(t) * masked_nll(denoiser, params, x_0, is_masked, mask_id=mask_id).sum(axis=-1)


def subset_loss(
    denoiser: Denoiser, params: Params, key: Array, x_0: Array, *, mask_id: int, is_prompt: Array | None = None
) -> Array:
    """(L' / n) Σ_{i in M} -log p_theta(x_0^i | x[M]) for a uniform subset M of n positions, n ~ U{1..L'}.

    n is stratified over the batch as t is in `elbo_loss`. Source: Kim et al. 2025, Proposition 2.1.

    Args:
      denoiser: the network.
      params: its parameters.
      key: a typed key; consumed.
      x_0: int32 [B, L], clean tokens.
      mask_id: the mask token's id.
      is_prompt: bool [B, L]; True is never masked and never scored.

    Returns:
      float32 [B], nats per sequence: an unbiased estimate of L_theta; 0 for a row that is all prompt.

    Raises:
      InputError: a shape, a dtype or the mask id is off, or the denoiser's output is.
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    subsets = draw_subsets(key, x_0, mask_id=mask_id, is_prompt=is_prompt)
    return subset_nll(denoiser, params, subsets, mask_id=mask_id)[inverse(subsets.example[None])[0]]


class Subsets(NamedTuple):
    """The draws of `subset_loss`, with its examples in another order: see `draw_subsets`."""

    example: Array
    """int32 [B]: which example each row is"""
    x_0: Array
    """int32 [B, L]"""
    is_masked: Array
    """bool [B, L], M"""
    num_free: Array
    """int32 [B], L'"""


def draw_subsets(key: Array, x_0: Array, *, mask_id: int, is_prompt: Array | None = None) -> Subsets:
    """Draws the subset of every example, and brings them in pairs: the k-th smallest beside the k-th largest draw of n.

    n is stratified, so that together the two rows of a pair have at most L + L/B + 2 masks: that bounds how many logits
    `subset_nll` makes from Features. Arguments as for `subset_loss`.
    """
    x_0 = check_tokens(x_0, "x_0")
    batch, length = x_0.shape
    key_size, key_order = jax.random.split(one_key(key))
    num_free = free_positions(x_0, is_prompt).sum(axis=-1)
    uniforms = stratified(key_size, batch)
    drawn = jnp.floor(uniforms * num_free.astype(jnp.float32)).astype(jnp.int32)
    size = 1 + jnp.minimum(drawn, num_free - 1)
    order = uniform_order(key_order, batch, length)
    _, is_masked = mask_last(x_0, order, num_free - size, mask_id=mask_id, is_prompt=is_prompt)
    ascending = jnp.argsort(uniforms).astype(jnp.int32)
    example = jnp.stack([ascending, ascending[::-1]], axis=-1).reshape(-1)[:batch]
    return Subsets(example, x_0[example], is_masked[example], num_free[example])


def subset_nll(denoiser: Denoiser, params: Params, subsets: Subsets, *, mask_id: int, paired: bool = True) -> Array:
    """The terms of `subset_loss` for drawn subsets, or some pairs of them: float32 [B], with no randomness.

    Where the two rows of a pair lie on two devices, take `paired` = False, or they would exchange their hidden states.
    """
    _, x_0, is_masked, num_free = subsets
    batch, length = x_0.shape
    rows, budget = 1, None
    if paired and batch % 2 == 0:
        rows, budget = 2, length + length // batch + 3  # one more than the bound, for rounding
    nll = masked_nll(denoiser, params, x_0, is_masked, mask_id=mask_id, rows=rows, budget=budget)
    return num_free / jnp.maximum(is_masked.sum(axis=-1), 1) * nll.sum(axis=-1)


def order_loss(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_0: Array,
    *,
    mask_id: int,
    order: Array | None = None,
    num_orders: int = 1,
    is_prompt: Array | None = None,
) -> Array:
    """L' · (-log p_theta(x_0^π(n) | x[π{n..}])) at a random step n ~ U{0..L'-1} of a random order π.

    The mean over `num_orders` orders per example, each with its own step. With a fixed `order` the expectation is
    `order_nll`: the loss of a π-learner. Source: Kim et al. 2025, sections 2 and 3.2.

    Args:
      denoiser: the network.
      params: its parameters.
      key: a typed key; consumed.
      x_0: int32 [B, L], clean tokens.
      mask_id: the mask token's id.
      order: int32 [B, L], π; None draws one uniformly for each example and repetition.
      num_orders: orders (with a fixed `order`: steps of it) per example.
      is_prompt: bool [B, L]; True is never masked and never scored.

    Returns:
      float32 [B], nats per sequence: an unbiased estimate of L_theta, or of `order_nll` if `order` is given.

    Raises:
      InputError: a shape, a dtype, `num_orders` or the mask id is off, or the denoiser's output is.
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    batch, length = x_0.shape
    check_number("num_orders", num_orders, Range(1, INT32), whole=True)

    def repeat(values: Array) -> Array:
        return jnp.repeat(values, num_orders, axis=0)

    key_order, key_step = jax.random.split(one_key(key))
    is_free = repeat(free_positions(x_0, is_prompt))
    order = uniform_order(key_order, batch * num_orders, length) if order is None else repeat(check_order(order, x_0))
    num_free = is_free.sum(axis=-1)
    step = jax.random.randint(key_step, (batch * num_orders,), 0, jnp.maximum(num_free, 1))
    nll = next_token_nll(denoiser, params, repeat(x_0), order, step, mask_id=mask_id, is_prompt=~is_free)
    return (num_free.astype(jnp.float32) * nll).reshape(batch, num_orders).mean(axis=-1)


def next_token_nll(
    denoiser: Denoiser,
    params: Params,
    x_0: Array,
    order: Array,
    step: Array,
    *,
    mask_id: int,
    is_prompt: Array | None = None,
) -> Array:
    """-log p_theta(x_0^π(n) | x[π{n..}]) with n = `step` [B]: float32 [B], 0 where n >= L', with no randomness."""
    _, is_masked = mask_last(x_0, order, step, mask_id=mask_id, is_prompt=is_prompt)
    is_next = is_masked & (free_rank(order, free_positions(x_0, is_prompt)) == step[:, None])
    nll = masked_nll(denoiser, params, x_0, is_masked, mask_id=mask_id, is_scored=is_next, budget=1)
    return nll.sum(axis=-1)


def order_nll(
    denoiser: Denoiser, params: Params, x_0: Array, order: Array, *, mask_id: int, is_prompt: Array | None = None
) -> Array:
    """-log p_theta(x_0; π) = Σ_j -log p_theta(x_0^π(j) | x[π{j..}]), exactly, in L network calls.

    Source: Kim et al. 2025, Eq. 3.

    Args:
      denoiser: the network.
      params: its parameters.
      x_0: int32 [B, L], clean tokens.
      order: int32 [B, L], π; prompt positions in it are skipped.
      mask_id: the mask token's id.
      is_prompt: bool [B, L]; True is never masked and never scored.

    Returns:
      float32 [B], nats per sequence.
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    order = check_order(order, x_0)
    batch, length = x_0.shape
    if known_values(x_0) is not None:
        output = jax.eval_shape(lambda params: call(denoiser, params, x_0), params)
        check_targets(x_0, free_positions(x_0, is_prompt), vocab_size_of(output), "x_0")

    def add_step(total: Array, step: Array) -> tuple[Array, None]:
        steps = jnp.broadcast_to(step, (batch,))
        nll = next_token_nll(denoiser, params, x_0, order, steps, mask_id=mask_id, is_prompt=is_prompt)
        return total + nll, None

    return jax.lax.scan(add_step, jnp.zeros(batch), jnp.arange(length))[0]


def causal_nll(decoder: Denoiser, params: Params, x_0: Array, *, bos_id: int, order: Array | None = None) -> Array:
    """Σ_j -log p(x_0^π(j) | x_0^π(0), ..., x_0^π(j-1)) of an autoregressive model, in one network call.

    The decoder reads [bos, x^π(0), ..., x^π(L-2)] and its output at slot j predicts x^π(j); it must be causal. With an
    order this is the paper's π-learner: a causal model of the permuted sequence, whose positions count the slots.
    Source: Kim et al. 2025, section 3.2 and C.1.

    Args:
      decoder: (params, tokens int32 [B, L]) -> logits float [B, L, V] or Features, causal.
      params: its parameters.
      x_0: int32 [B, L], clean tokens.
      bos_id: the id that starts every sequence; the embedding must have a row for it.
      order: int32 [B, L], π; None is from left to right.

    Returns:
      float32 [B], nats per sequence.

    Raises:
      InputError: the decoder reads groups of tokens as one, of which it predicts none.
    """
    x_0, bos_id = check_tokens(x_0, "x_0", decoder), check_mask_id(bos_id, decoder, "bos_id")
    if getattr(getattr(decoder, "config", None), "num_groups", 0):
        raise InputError("a decoder that reads groups of tokens says nothing of these; score what is behind them alone")
    sequence = x_0 if order is None else jnp.take_along_axis(x_0, check_order(order, x_0), axis=-1)
    inputs = jnp.pad(sequence[:, :-1], ((0, 0), (1, 0)), constant_values=bos_id)
    output = call(decoder, params, inputs)
    return scored_nll(output, sequence, jnp.ones(sequence.shape, bool), mask_id=None).sum(axis=-1)
