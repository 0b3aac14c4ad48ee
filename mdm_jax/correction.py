"""Steps that can mask tokens again: the decoder of Ye et al. 2024.

Kim et al. 2025 decoded their puzzles with that code and describe it only as "Gumbel noise with a
coefficient of 0.5 to the oracle F" (D.2). The options cover the readings that this leaves open.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.errors import InputError, shown
from mdm_jax.loop import Loop
from mdm_jax.oracles import margin
from mdm_jax.randomness import position_gumbel
from mdm_jax.ranges import Range, check_number
from mdm_jax.sampling import SampleResult, Whole, check_arguments, decode
from mdm_jax.selection import TopK
from mdm_jax.typing import Array, Confidence, Denoiser, Oracle, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoisyTopK(TopK):
    """`TopK` by noisy scores: F(θ, x_t) + noise · t/T · Gumbel in step j of T, with t = T - j.

    Attributes:
      noise: coefficient of the standard Gumbel noise, in units of the oracle's score.
      anneal: whether the noise falls with t/T; if not, the coefficient is the same in every step.
    """

    noise: Array | float = 0.5
    anneal: Array | bool = True

    def perturb(self, keys: Array, scores: Array, j: Array) -> Array:
        """The scores with noise, float32 [B, L]; keys [B] are consumed."""
        num_steps = jnp.maximum(self.num_steps, 1)
        scale = self.noise * jnp.where(self.anneal, (num_steps - j) / num_steps, 1.0)
        return scores + scale[:, None] * position_gumbel(keys, scores.shape[1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Remask(NoisyTopK):
    """`NoisyTopK` over all targets: step j masks the ⌊n t/T⌋ of lowest score, revealed or not."""

    def take_back(self, scores: Array, confidence: Confidence, is_open: Array, is_chosen: Array) -> Array:
        """All open positions that are not chosen."""
        del scores, confidence
        return is_open & ~is_chosen


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
    """Fills in every mask of `x_init` in T steps; by default a step may mask revealed tokens again.

    The masks of `x_init` are the targets, n in a row. Step j = 1..T, with t = T - j, predicts every
    target and scores it by F(θ, x_t) + noise · t/T · Gumbel. The ⌊n t/T⌋ targets of lowest score
    are masked, whether they were masked or revealed. All others get the tokens of this step, also
    where a token was revealed before. So the last step writes every target, and the network must
    predict tokens at revealed positions too.

    With `remask=False` revealed tokens stay and only masks compete, until ⌊n t/T⌋ masks are left.
    Without noise this gives the same draws as `sample` with `TopK(T)`.

    Rows are independent. Static are the denoiser, an oracle that is a plain function, `mask_id`,
    `remask`, and whether the temperature is 0. Everything else is traced.

    Source: Ye et al. 2024 (arXiv:2410.14157), trainer.py: "stochastic0.5-linear" is
    `oracles.top_log_prob` with the defaults. Deviations: ties go to the lowest index, and the mask
    token is never predicted.

    Args:
      denoiser: the network; hashable, and the same or an equal object in every call.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], with `mask_id` at every position to fill in; the rest is the prompt and
        does not change.
      mask_id: id of the mask token, a Python int >= 0; if it is below V, it is never predicted.
      num_steps: T, at least 1.
      oracle: scores the positions; see `oracles`. With `remask` it sees all targets, revealed ones
        too.
      noise: coefficient of the standard Gumbel noise, in units of the oracle's score; at least 0.
      anneal: whether the noise falls with t/T; if not, the coefficient is the same in every step.
      remask: whether revealed tokens are predicted again and may be masked again.
      temperature: of the tokens drawn, at least 0; 0 takes the likeliest. The oracle always sees
        temperature 1.

    Returns:
      SampleResult. `reveal_step` is the call that last turned the mask of a position into a token.
      `log_prob` sums log p_theta of the final tokens in the calls that last wrote them. With
      `remask` that is the last call for all targets, and the network sees the tokens that it
      overwrites. With `remask` every step calls the network if any row has a target (except steps
      that would mask every target, which occur only if T is about 10,000 n or more); without it, a
      step that reveals nothing in any row does not.

    Raises:
      InputError: a shape, a dtype or an option is invalid, or the output of the denoiser is.

    Example:
      def denoiser(params, tokens):
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      params = jax.random.normal(jax.random.key(0), (6, 5))
      x_init = jnp.full((2, 8), 5)
      result = mdm_jax.remasking_sample(
          denoiser, params, jax.random.key(1), x_init, mask_id=5, num_steps=4
      )
      assert (result.tokens < 5).all() and int(result.nfe) == 4
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
    kind = Remask if remask else NoisyTopK
    selector = kind(num_steps, noise=jnp.asarray(noise, jnp.float32), anneal=jnp.asarray(anneal))
    steps: Any = jnp.asarray(num_steps, jnp.int32)  # one trace for Python and NumPy integers
    selector = dataclasses.replace(selector, num_steps=steps)
    loop = Loop(Whole(denoiser), mask_id, tokens.shape[1])
    return decode(loop, params, keys, tokens, oracle, selector, temperature)


def _is_one(value: Any, *kinds: Any) -> bool:
    """Whether `value` is a single number of one of these dtypes, traced or not."""
    if not (isinstance(value, int | float) or hasattr(value, "dtype")) or jnp.ndim(value) != 0:
        return False
    return any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)
