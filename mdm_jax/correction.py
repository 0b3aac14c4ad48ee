"""Steps that can take back: the decoder of Ye et al. 2024, with noise on the scores and a fixed number of steps.

Kim et al. 2025 decoded their puzzles with that code and say no more than "Gumbel noise with a coefficient of 0.5 to the
oracle F" (D.2). The options are the readings that this leaves open.
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
    """`TopK` by scores with Gumbel noise: F(θ, x_t) + noise · t/T · Gumbel in step j of T, with t = T - j.

    Attributes:
      noise: coefficient of the standard Gumbel noise, in units of the oracle's score.
      anneal: whether the noise falls with t/T; if not, it has the same coefficient in every step.
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
    """Of all targets, the ⌊n t/T⌋ of lowest score are masked after each step, whether or not they were before."""

    def take_back(self, scores: Array, confidence: Confidence, is_open: Array, is_chosen: Array) -> Array:
        """All that is not chosen."""
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
    chosen = Remask if remask else NoisyTopK
    selector = chosen(num_steps, noise=jnp.asarray(noise, jnp.float32), anneal=jnp.asarray(anneal))
    whole: Any = jnp.asarray(num_steps, jnp.int32)  # one trace for numbers of all kinds
    selector = dataclasses.replace(selector, num_steps=whole)
    loop = Loop(Whole(denoiser), mask_id, tokens.shape[1])
    return decode(loop, params, keys, tokens, oracle, selector, temperature)


def _is_one(value: Any, *kinds: Any) -> bool:
    """Whether `value` is a single number, traced or not, of one of these kinds."""
    if not (isinstance(value, int | float) or hasattr(value, "dtype")) or jnp.ndim(value) != 0:
        return False
    return any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)
