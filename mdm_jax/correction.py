"""Steps that can mask tokens again.

`correcting_sample` takes back tokens that a judge finds wrong. `remasking_sample` is the decoder of
Ye et al. 2024. Kim et al. 2025 decoded their puzzles with that code and describe it only as "Gumbel
noise with a coefficient of 0.5 to the oracle F" (D.2). The options cover the readings that this
leaves open.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import check_scalar
from mdm_jax.errors import InputError, shown
from mdm_jax.judges import judge_named
from mdm_jax.loop import Loop
from mdm_jax.oracles import margin
from mdm_jax.randomness import position_gumbel
from mdm_jax.ranges import FLOAT32, INT32, Range
from mdm_jax.sampling import SampleResult, Whole, check_arguments, decode
from mdm_jax.selection import PerStep, TopK
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
    check_scalar("noise", noise, Range(0, FLOAT32))
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


DOUBT = 0.5
"""A token may be taken back where the probability that it is right is at most this."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TakeBack(PerStep):
    """`PerStep(k)` that masks again, in each step, up to k - 1 of the tokens of quality at most tau.

    Attributes:
      tau: a probability.
    """

    tau: Array | float = DOUBT

    def judges(self, num_reveal: Array) -> Array:
        """Rows in which a token can be taken back at all, bool [B]."""
        return (num_reveal > 1) & (self.tau > 0)

    def doubts(self, quality: Array) -> Array:
        """Where the quality is at most tau, bool [B, L]; with tau = 1 everywhere."""
        return quality <= self.tau


def correcting_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    judge: str = "leave-one-out",
    k: int = 2,
    tau: Array | float = DOUBT,
    oracle: Oracle = margin,
    temperature: Array | float = 1.0,
) -> SampleResult:
    """Fills in every mask of `x_init`, and takes tokens back on the way that look wrong by now.

    Each step reveals the k best-scored masks of a row, as `sample` with `PerStep(k)`. Of the tokens
    that it revealed before, the step masks those again whose quality is at most `tau`, the lowest
    first, and no more than k - 1 (in a row that reveals fewer than k, fewer than it reveals). So a
    row of n masks ends after at most n steps, whatever the network gives. With k = 1 or tau = 0
    nothing can be taken back, and this is `sample`.

    The judge says what the quality of a token is, and what it costs (`judges`):

    - "leave-one-out": its probability where it alone is masked. For any network. A step makes one
      call more for each token that is judged: all that were revealed before, in the row with most.
    - "filled": its probability once the masks are filled in, for a network trained on its own
      answers (`--loss filled`). A step makes two calls.
    - "quality": a trained head's (`--loss quality`), at `params["quality"]`. A step makes one call.

    Args:
      denoiser: the network, as in `sample`.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], with `mask_id` at every position to fill in; the rest is the prompt and
        does not change.
      mask_id: id of the mask token.
      judge: a name in `judges.JUDGES`.
      k: positions that a step reveals, at least 1.
      tau: from 0 to 1; at 1 every step takes back as many as it may.
      oracle: scores the masks; see `oracles`.
      temperature: of the tokens drawn, as in `sample`.

    Returns:
      SampleResult. `nfe` counts the calls of the judge too. `reveal_step` and `log_prob` are of the
      call that last revealed a position.

    Raises:
      InputError: as `sample`; or the judge is unknown, or `tau` is no probability; or the network
        has not what the judge needs.

    Example:
      def denoiser(params, tokens):  # the first token looks like 0 while all are masked, and is 1
          first = params[(tokens == 3).sum(axis=1, keepdims=True)]
          return jnp.concatenate([first, jnp.tile(params[:1], (len(tokens), 3, 1))], axis=1)

      given = (denoiser, jnp.zeros((5, 3)).at[:4, 1].set(9.0), jax.random.key(0), jnp.full((1, 4), 3))
      options = {"mask_id": 3, "oracle": mdm_jax.oracles.left_to_right, "temperature": 0.0}
      assert mdm_jax.sample(*given, **options).tokens.tolist() == [[0, 1, 1, 1]]
      assert mdm_jax.correcting_sample(*given, k=2, **options).tokens.tolist() == [[1, 1, 1, 1]]
    """
    tokens, keys, mask_id = check_arguments(denoiser, key, x_init, mask_id, oracle)
    make_judge = judge_named(judge)
    check_scalar("k", k, Range(1, INT32), whole=True)
    check_scalar("tau", tau, Range(0, 1))
    steps: Any = jnp.asarray(k, jnp.int32)  # one trace for Python and NumPy integers
    selector = TakeBack(steps, tau=jnp.asarray(tau, jnp.float32))
    loop = Loop(make_judge(denoiser, mask_id), mask_id, tokens.shape[1])
    return decode(loop, params, keys, tokens, oracle, selector, temperature)


def _is_one(value: Any, *kinds: Any) -> bool:
    """Whether `value` is a single number of one of these dtypes, traced or not."""
    if not (isinstance(value, int | float) or hasattr(value, "dtype")) or jnp.ndim(value) != 0:
        return False
    return any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)
