"""The training objective L_theta of masked diffusion, in three forms with one expectation.

    L_theta = ∫ |α'_t| / (1 - α_t) E Σ_{i masked} -log p_theta(x_0^i | x_t) dt          `elbo_loss`   (Eq. 1)
            = E_{n ~ U{1..L}} E_{|M| = n} (L / n) Σ_{i in M} -log p_theta(x_0^i | x[M])  `subset_loss` (Proposition 2.1)
            = E_π Σ_j -log p_theta(x_0^π(j) | x[π{j..}])                                 `order_loss`

L_theta is an upper bound on the negative log-likelihood. It does not depend on the schedule. All losses are per
example, in nats per sequence, float32 [B]. Prompt positions are never masked and never scored; L' counts the others.
`subset_loss` has the lowest variance, and training uses it: it scores all masked positions, where `order_loss` scores
one, and it draws the number of masks, where `elbo_loss` draws a rate. Source: Kim et al. 2025, section 2, appendix E;
Zheng et al. 2024 (arXiv:2409.02908).

A loss is a draw (`draws`): what is masked, what is scored, and how much it weighs. There is one likelihood of it,
`nll`, for the functions here and for training alike.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.checks import (
    call,
    check_mask_id,
    check_targets,
    check_tokens,
    has_unknown_ids,
    known_values,
    vocab_size_of,
)
from mdm_jax.draws import Draw, Elbo, Masked, Order, Subset, next_of
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.masking import free_positions, mask_where
from mdm_jax.orders import check_order, inverse, uniform_order
from mdm_jax.randomness import one_key
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.schedules import Schedule, check_schedule
from mdm_jax.typing import Array, Denoiser, Features, Params


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
    """-log p_theta(x_0^i | x[M]) at the scored positions, 0 elsewhere: float32 [B, L], with no randomness.

    The scored positions are `is_scored` bool [B, L], a subset of the masked ones; None scores all of these. `rows` and
    `budget` are as for `scored_nll`. A row of x_0 with an id that the network has no embedding for is NaN throughout.
    """
    output = call(denoiser, params, mask_where(x_0, is_masked, mask_id))
    is_scored = is_masked if is_scored is None else is_scored
    nll = scored_nll(output, x_0, is_scored, mask_id=mask_id, rows=rows, budget=budget)
    return jnp.where(has_unknown_ids(x_0, denoiser)[:, None], jnp.nan, nll)


def nll(
    denoiser: Denoiser, params: Params, masked: Masked, *, mask_id: int, draw: Any = None, paired: bool = True
) -> Array:
    """Weight · Σ_{i scored} -log p_theta(x_0^i | x[M]) of drawn rows, with no randomness.

    Args:
      denoiser: the network.
      params: its parameters.
      masked: rows of one draw, from an even index on, so that pairs stay whole.
      mask_id: the mask token's id.
      draw: gives `most_scored` and `token_loss`, if it has them; None for neither.
      paired: whether rows 2k and 2k + 1 lie on one device. If not, they share no budget: they would have to exchange
        hidden states.

    Returns:
      float32 [B], nats per sequence.
    """
    output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
    nats = nll_of(output, masked, mask_id=mask_id, draw=draw, paired=paired)
    return jnp.where(has_unknown_ids(masked.x_0, denoiser), jnp.nan, nats)


def nll_of(output: Array | Features, masked: Masked, *, mask_id: int, draw: Any = None, paired: bool = True) -> Array:
    """`nll` by what the network made of the masked rows: its logits [B, L, V], or Features."""
    batch, length = masked.x_0.shape
    rows, budget = draw.most_scored(batch, length) if hasattr(draw, "most_scored") else (1, None)
    if batch % rows or (rows > 1 and not paired):
        rows, budget = 1, None
    nats = scored_nll(output, masked.x_0, masked.is_scored, mask_id=mask_id, rows=rows, budget=budget)
    if hasattr(draw, "token_loss"):
        nats = draw.token_loss(nats)
    return masked.weight * nats.sum(axis=-1)


def by_example(losses: Array, masked: Masked) -> Array:
    """Reorders losses of drawn rows [B] to the order of the examples."""
    return losses[inverse(masked.example[None])[0]]


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
    """|α'_t| / (1 - α_t) Σ_{i masked} -log p_theta(x_0^i | x_t) at a random time t: the draw `Elbo`.

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

    Example:
      def denoiser(params, tokens):
        return params[tokens]

      params, x_0 = jnp.zeros((5, 4)), jnp.zeros((8, 6), jnp.int32)
      nats = mdm_jax.elbo_loss(
          denoiser, params, jax.random.key(0), x_0, schedule=mdm_jax.Linear(), mask_id=4
      )
      assert nats.shape == (8,)
    """
    check_schedule(schedule)
    return _loss(Elbo(schedule), denoiser, params, key, x_0, mask_id, is_prompt)


def subset_loss(
    denoiser: Denoiser, params: Params, key: Array, x_0: Array, *, mask_id: int, is_prompt: Array | None = None
) -> Array:
    """(L' / n) Σ_{i in M} -log p_theta(x_0^i | x[M]) for a uniform subset M of n ~ U{1..L'}: the draw `Subset`.

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

    Example:
      def denoiser(params, tokens):
        return params[tokens]

      params, x_0 = jnp.zeros((5, 4)), jnp.zeros((8, 6), jnp.int32)
      nats = mdm_jax.subset_loss(denoiser, params, jax.random.key(0), x_0, mask_id=4)
      assert jnp.allclose(nats, 6 * jnp.log(4.0)), "each of six tokens is one of four"
    """
    return _loss(Subset(), denoiser, params, key, x_0, mask_id, is_prompt)


def _loss(
    draw: Draw, denoiser: Denoiser, params: Params, key: Array, x_0: Array, mask_id: int, is_prompt: Array | None
) -> Array:
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    masked = draw(key, x_0, is_prompt)
    return by_example(nll(denoiser, params, masked, mask_id=mask_id, draw=draw), masked)


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

    Example:
      def denoiser(params, tokens):
        return params[tokens]

      params, x_0 = jnp.zeros((5, 4)), jnp.zeros((8, 6), jnp.int32)
      left_to_right = mdm_jax.identity_order(8, 6)
      nats = mdm_jax.order_loss(
          denoiser, params, jax.random.key(0), x_0, mask_id=4, order=left_to_right, num_orders=2
      )
      assert nats.shape == (8,)
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    batch, length = x_0.shape
    check_number("num_orders", num_orders, Range(1, INT32), whole=True)

    def repeat(values: Array) -> Array:
        return jnp.repeat(values, num_orders, axis=0)

    key_order, key_step = jax.random.split(one_key(key))
    is_free = repeat(free_positions(x_0, is_prompt))
    order = uniform_order(key_order, batch * num_orders, length) if order is None else repeat(check_order(order, x_0))
    draw = Order()
    masked = draw.given(key_step, repeat(x_0), order, ~is_free)
    return nll(denoiser, params, masked, mask_id=mask_id, draw=draw).reshape(batch, num_orders).mean(axis=-1)


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

    Example:
      def denoiser(params, tokens):
        return params[tokens]

      params, x_0 = jnp.zeros((5, 4)), jnp.zeros((8, 6), jnp.int32)
      nats = mdm_jax.order_nll(denoiser, params, x_0, mdm_jax.identity_order(8, 6), mask_id=4)
      assert jnp.allclose(nats, 6 * jnp.log(4.0))
    """
    x_0, mask_id = check_tokens(x_0, "x_0", denoiser), check_mask_id(mask_id, denoiser)
    order = check_order(order, x_0)
    batch, length = x_0.shape
    if known_values(x_0) is not None:
        output = jax.eval_shape(lambda params: call(denoiser, params, x_0), params)
        check_targets(x_0, free_positions(x_0, is_prompt), vocab_size_of(output), "x_0")

    def add_step(total: Array, step: Array) -> tuple[Array, None]:
        steps = jnp.broadcast_to(step, (batch,))
        masked = next_of(x_0, order, steps, is_prompt)
        return total + nll(denoiser, params, masked, mask_id=mask_id, draw=Order()), None

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
      InputError: the decoder reads groups of tokens as one vector each, and so predicts none of these tokens.

    Example:
      def denoiser(params, tokens):
        return params[tokens]

      params, x_0 = jnp.zeros((5, 4)), jnp.zeros((8, 6), jnp.int32)
      nats = mdm_jax.causal_nll(denoiser, params, x_0, bos_id=4)
      assert jnp.allclose(nats, 6 * jnp.log(4.0))
    """
    x_0, bos_id = check_tokens(x_0, "x_0", decoder), check_mask_id(bos_id, decoder, "bos_id")
    if getattr(decoder, "shortest_prompt", 1) > 1:
        raise InputError("a decoder that reads groups of tokens says nothing of these; score what is behind them alone")
    sequence = x_0 if order is None else jnp.take_along_axis(x_0, check_order(order, x_0), axis=-1)
    inputs = jnp.pad(sequence[:, :-1], ((0, 0), (1, 0)), constant_values=bos_id)
    output = call(decoder, params, inputs)
    return scored_nll(output, sequence, jnp.ones(sequence.shape, bool), mask_id=None).sum(axis=-1)
