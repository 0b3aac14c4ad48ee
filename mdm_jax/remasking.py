"""The decoder of Ye et al. 2024: a fixed number of steps, noise on the scores, and tokens that can be taken back.

Kim et al. 2025 decoded their puzzles with that code and say no more than "Gumbel noise with a coefficient of 0.5 to the
oracle F" (D.2). The options are the readings that this leaves open.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.confidence import is_greedy, read_confidence
from mdm_jax.denoiser import call
from mdm_jax.errors import InputError, shown
from mdm_jax.loop import idle_steps, row_scores, written_log_prob
from mdm_jax.oracles import margin
from mdm_jax.randomness import fold_rows, position_gumbel, split_rows
from mdm_jax.ranges import Range, check_number
from mdm_jax.sampling import SampleResult, check_arguments, sampled
from mdm_jax.selection import TopK, choose_step, plan_step
from mdm_jax.tiles import ways_of
from mdm_jax.typing import Array, Confidence, Denoiser, Oracle, Params


class RemaskState(NamedTuple):
    """The carry of the loop. What is no target never changes."""

    tokens: Array
    """int32 [B, L], the mask token at targets that are masked, for the first time or again"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that last turned the position's mask into a token, -1 if none did"""
    log_prob: Array
    """float32 [B, L], nats: of the last token written to the position, at the call that wrote it; 0 if none was"""
    nfe: Array
    """int32 scalar, network calls so far"""
    j: Array
    """int32 scalar, steps so far, with those that called no network"""


def remasking_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    num_steps: int,
    oracle: Oracle = margin,
    noise: Array | float = 0.5,
    anneal: Array | bool = True,
    remask: bool = True,
    temperature: Array | float = 0.0,
) -> SampleResult:
    """Fills in every mask of `x_init` in T steps; by default a step may take back what earlier steps revealed.

    The masks of `x_init` are the targets, n of them in a row. Step j = 1..T, with t = T - j, predicts every target anew
    and scores it by F(θ, x_t) + noise · t/T · Gumbel. The ⌊n t/T⌋ targets of lowest score are masked, whether or not
    they were before; all others take the tokens of this step, also those that hold a token. So the last step writes
    every target, and the network must have something to say of positions that are not masked.

    With `remask=False` what is revealed stays, and only masks compete, ⌊n t/T⌋ of them being left. Without noise that
    is `sample` with `TopK(T)`, draw by draw.

    Rows are independent. All but denoiser, oracle, mask_id, remask and whether the temperature is 0 is traced.

    Source: Ye et al. 2024 (arXiv:2410.14157), trainer.py: "stochastic0.5-linear" is `oracles.top_log_prob` with the
    defaults. Deviations: ties go to the lowest index; the mask token is never predicted.

    Args:
      denoiser: the network; hashable, and the same object (or an equal one) in every call.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted; what is unmasked comes back untouched.
      mask_id: the mask token's id, a Python int >= 0; if it is below V, it is never predicted.
      num_steps: T, at least 1.
      oracle: scores of positions; see `oracles`. With remask it is shown all targets, revealed ones too.
      noise: coefficient of the standard Gumbel noise, in units of the oracle's score; at least 0.
      anneal: whether the noise falls with t/T; if not, it has the same coefficient in every step.
      remask: whether revealed tokens are predicted anew and may be masked again.
      temperature: of the tokens drawn; 0 takes the likeliest. The oracle sees temperature 1 whatever it is.

    Returns:
      SampleResult: `reveal_step` is the call that last turned the position's mask into a token, `log_prob` sums log
      p_theta of the final tokens at the calls that last wrote them: with remask all in the last call, which sees what
      it overwrites. With remask each step is a network call, if there is any target (but for those in which all targets
      would be masked, beyond 10,000 steps for each); without it, a step that reveals nothing in any row is none.

    Raises:
      InputError: a shape, a dtype or an option is off, or the denoiser's output is.
    """
    tokens, keys, mask_id = check_arguments(denoiser, key, x_init, mask_id, oracle)
    if not _is_one(num_steps, jnp.integer):
        raise InputError(f"num_steps must be a whole number, got {shown(num_steps)}")
    if not _is_one(noise, jnp.floating, jnp.integer):
        raise InputError(f"noise must be one number, got {shown(noise)}")
    if not isinstance(noise, jax.core.Tracer):
        plain = noise if isinstance(noise, int | float) else float(noise)
        check_number("noise", plain, Range(0, float(jnp.finfo(jnp.float32).max)))
    if not _is_one(anneal, jnp.bool_):
        raise InputError(f"anneal must be True or False, got {shown(anneal)}")
    if not isinstance(remask, bool):
        raise InputError(f"remask must be a Python bool, got {shown(remask)}")
    selector = jax.tree.map(functools.partial(jnp.asarray, dtype=jnp.int32), TopK(num_steps))
    greedy = is_greedy(temperature)
    return _remasking_sample(
        denoiser,
        params,
        keys,
        tokens,
        selector,
        jnp.asarray(noise, jnp.float32),
        jnp.asarray(anneal),
        jnp.asarray(temperature, jnp.float32),
        mask_id=mask_id,
        oracle=oracle,
        remask=remask,
        greedy=greedy,
        ways=ways_of(tokens),
    )


def _is_one(value: Any, *kinds: Any) -> bool:
    """Whether `value` is a single number, traced or not, of one of these kinds."""
    if not (isinstance(value, int | float) or hasattr(value, "dtype")) or jnp.ndim(value) != 0:
        return False
    return any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)


@functools.partial(jax.jit, static_argnames=("denoiser", "mask_id", "oracle", "remask", "greedy", "ways"))
def _remasking_sample(
    denoiser: Denoiser,
    params: Params,
    keys: Array,
    x_init: Array,
    selector: TopK,
    noise: Array,
    anneal: Array,
    temperature: Array,
    *,
    mask_id: int,
    oracle: Oracle,
    remask: bool,
    greedy: bool,
    ways: int,
) -> SampleResult:
    draw_at = None if greedy else temperature
    is_target, num_steps = x_init == mask_id, jnp.maximum(selector.num_steps, 1)
    n_0 = is_target.sum(axis=-1, dtype=jnp.int32)

    def is_open(state: RemaskState) -> Array:
        return is_target if remask else state.tokens == mask_id

    def cond_fun(state: RemaskState) -> Array:
        return (state.j < num_steps) & jnp.any(is_open(state))

    def body_fun(state: RemaskState) -> RemaskState:
        # The first three are the keys of `sample`, and so are the draws made with them.
        plan_keys, token_keys, score_keys, noise_keys = split_rows(fold_rows(keys, state.j), 4)
        state = state._replace(j=state.j + 1)
        is_target_now = is_open(state)
        left = is_target_now.sum(axis=-1, dtype=jnp.int32)
        num_reveal = plan(plan_keys, state.j, left)
        scale = noise * jnp.where(anneal, (num_steps - state.j) / num_steps, 1.0)

        def reveal(state: RemaskState) -> RemaskState:
            is_read = is_target_now & (num_reveal > 0)[:, None]
            output = call(denoiser, params, state.tokens, is_read, ways=ways)
            confidence = read_confidence(token_keys, output, draw_at, mask_id, is_read, ways=ways)
            scores = row_scores(oracle, score_keys, confidence)
            scores = scores + scale * position_gumbel(noise_keys, x_init.shape[1])
            is_chosen = choose_step(selector, scores, confidence, is_read, num_reveal)
            return write_tokens(state, is_target_now, is_chosen, scores, confidence, mask_id)

        def wait(state: RemaskState) -> RemaskState:
            idle = idle_steps(lambda steps: plan(plan_keys, state.j + steps, left) == 0, len(n_0))
            return state._replace(j=state.j + idle)

        return jax.lax.cond(jnp.any(num_reveal > 0), reveal, wait, state)

    def plan(keys: Array, j: Array, left: Array) -> Array:
        planned = plan_step(selector, keys, jnp.broadcast_to(j, n_0.shape), n_0, left)
        assert planned is not None
        return planned

    zero = jnp.zeros((), jnp.int32)
    start = RemaskState(
        tokens=x_init,
        reveal_step=jnp.full_like(x_init, -1),
        log_prob=jnp.zeros_like(x_init, jnp.float32),
        nfe=zero,
        j=zero,
    )
    end = jax.lax.while_loop(cond_fun, body_fun, start)
    return sampled(end, x_init, denoiser)


def write_tokens(
    state: RemaskState, is_open: Array, is_chosen: Array, scores: Array, confidence: Confidence, mask_id: int
) -> RemaskState:
    """Writes the tokens of the chosen positions, masks the other open ones, and counts one network call."""
    is_revealed = is_chosen & (state.tokens == mask_id)
    return state._replace(
        tokens=jnp.where(is_chosen, confidence.token, jnp.where(is_open, mask_id, state.tokens)),
        reveal_step=jnp.where(is_revealed, state.nfe, state.reveal_step),
        log_prob=jnp.where(is_chosen, written_log_prob(scores, confidence), state.log_prob),
        nfe=state.nfe + 1,
    )
