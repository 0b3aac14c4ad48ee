"""Sampling from a masked diffusion model in one jitted loop (`loop.run`).

In each step the selector plans how many positions of the open block to reveal. If any row reveals
one, the network is called, the oracle scores the open positions, and the best-scored of them get
their tokens. Source: Kim et al. 2025, section 2.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.checks import call, check_callable, check_mask_id, check_network, check_tokens, has_unknown_ids, is_tree
from mdm_jax.confidence import is_greedy
from mdm_jax.errors import InputError, shown
from mdm_jax.loop import Loop, Reading, State, init, run
from mdm_jax.oracles import as_tree, margin, random
from mdm_jax.randomness import row_keys
from mdm_jax.schedules import Schedule
from mdm_jax.selection import Binomial, PerStep, check_selector, classes_in
from mdm_jax.typing import Array, Corrector, Denoiser, Doubter, Oracle, Params, Selector


class SampleResult(NamedTuple):
    """What a sampler returns."""

    tokens: Array
    """int32 [B, L], without masks; the prompt is unchanged"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that revealed the position; -1 in the prompt"""
    log_prob: Array
    """float32 [B], nats: sum of log p_theta (temperature 1) of the tokens, when revealed"""
    nfe: Array
    """int32 scalar: network calls for the batch"""


Decode: TypeAlias = Callable[[Array, Array], SampleResult]
"""A sampler with all but keys [B] and x_init int32 [B, L] given."""


def sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    oracle: Oracle = margin,
    selector: Selector = PerStep(1),  # noqa: B008 (frozen)
    temperature: Array | float = 1.0,
    block_length: int | None = None,
) -> SampleResult:
    """Fills in every mask of `x_init`, in the order that `oracle` and `selector` choose.

    The unmasked tokens of `x_init` are the prompt and do not change. Rows are independent: the
    tokens of a row depend neither on the other rows nor on padding on the right, except where the
    rounding of the network decides a tie.

    The first call with new shapes compiles. Static are the denoiser, an oracle that is a plain
    function, the class and the schedule of the selector, `mask_id`, `block_length`, and whether the
    temperature is 0. Everything else is traced. Source: Kim et al. 2025, section 2.

    Args:
      denoiser: the network; hashable, and the same or an equal object in every call. If it has a
        method `features` (`typing.FeatureDenoiser`), logits are made only where they are read.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], with `mask_id` at every position to fill in.
      mask_id: id of the mask token, a Python int >= 0; if it is below V, it is never predicted.
      oracle: scores the positions; see `oracles`.
      selector: chooses how many positions a step reveals; see `selection`.
      temperature: of the tokens drawn, at least 0; 0 takes the likeliest. The oracle always sees
        temperature 1.
      block_length: for semi-autoregressive sampling. Only the leftmost block of this length with a
        mask is open. None opens the whole sequence.

    Returns:
      SampleResult.

    Raises:
      InputError: a shape, a dtype or an option is invalid, or the output of the denoiser is.

    Example:
      def denoiser(params, tokens):  # logits over the ids 0 to 4; the mask is id 5
          return params[tokens] + params[tokens].mean(axis=1, keepdims=True)

      params = jax.random.normal(jax.random.key(0), (6, 5))
      x_init = jnp.full((2, 8), 5).at[:, 0].set(3)
      result = mdm_jax.sample(denoiser, params, jax.random.key(1), x_init, mask_id=5)
      assert (result.tokens < 5).all() and (result.tokens[:, 0] == 3).all()
      assert int(result.nfe) == 7
    """
    tokens, keys, mask_id = check_arguments(denoiser, key, x_init, mask_id, oracle)
    block_length = check_block_length(block_length, tokens.shape[1])
    return decode(Loop(Whole(denoiser), mask_id, block_length), params, keys, tokens, oracle, selector, temperature)


def vanilla_sample(
    denoiser: Denoiser,
    params: Params,
    key: Array,
    x_init: ArrayLike,
    *,
    mask_id: int,
    schedule: Schedule,
    num_steps: int,
) -> SampleResult:
    """Simulates the reverse process: step by step, each mask is revealed independently.

    Step j = 1..T goes from t = 1 - (j - 1)/T to s = 1 - j/T. Each mask is revealed with probability
    (α_s - α_t) / (1 - α_t), and its token is drawn from p_theta. The implementation is `sample`
    with the random oracle and a binomial number of positions, which has the same law. A step in
    which no row reveals a position does not call the network. Source: Kim et al. 2025, section 2.

    Args:
      denoiser: the network, as in `sample`.
      params: parameters of the network.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], with `mask_id` at every position to fill in.
      mask_id: id of the mask token.
      schedule: α_t.
      num_steps: T, at least 1.

    Returns:
      SampleResult.

    Raises:
      InputError: as `sample`.

    Example:
      def denoiser(params, tokens):
          return params[tokens]

      params = jax.random.normal(jax.random.key(0), (6, 5))
      x_init = jnp.full((2, 8), 5)
      result = mdm_jax.vanilla_sample(
          denoiser, params, jax.random.key(1), x_init,
          mask_id=5, schedule=mdm_jax.Linear(), num_steps=16,
      )
      assert (result.tokens < 5).all() and int(result.nfe) <= 16
    """
    selector = Binomial(num_steps, schedule)
    return sample(denoiser, params, key, x_init, mask_id=mask_id, oracle=random, selector=selector)


def check_arguments(
    network: Any, key: Array, x_init: ArrayLike, mask_id: int, oracle: Oracle
) -> tuple[Array, Array, int]:
    """Checks the arguments that all samplers share.

    Returns:
      The tokens int32 [B, L], keys [B], and the id of the mask.

    Raises:
      InputError: one of them cannot be used.
    """
    check_network(network, "denoiser")
    tokens = check_tokens(x_init, "x_init", network)
    check_callable(oracle, "oracle")
    if not is_tree(oracle):
        check_network(oracle, "oracle")
    return tokens, row_keys(key, tokens.shape[0]), check_mask_id(mask_id, network)


def check_block_length(block_length: int | None, length: int) -> int:
    """The length of a block, L if `block_length` is None; InputError unless it is at least 1."""
    if block_length is None:
        return length
    if isinstance(block_length, bool) or not isinstance(block_length, int | np.integer) or block_length < 1:
        raise InputError(f"block_length must be a whole number of at least 1, or None; got {shown(block_length)}")
    return int(min(block_length, length))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The network of `sample`: each call reads whole sequences and keeps nothing."""

    denoiser: Denoiser
    together: ClassVar[bool] = False

    @property
    def num_tokens(self) -> int | None:
        """The denoiser takes the ids 0 to num_tokens - 1; None if it does not say."""
        return getattr(self.denoiser, "num_tokens", None)

    def init(self, batch: int, length: int) -> Any:
        """An empty memory."""
        return ()

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Calls the denoiser on all positions."""
        return Reading(call(self.denoiser, params, state.tokens, is_read), ())


def decode(
    loop: Loop,
    params: Params,
    keys: Array,
    tokens: Array,
    oracle: Oracle,
    selector: Selector,
    temperature: Array | float,
) -> SampleResult:
    """Runs the loop to its end in one jitted call."""
    return decode_tokens(loop, params, keys, tokens, oracle, selector, temperature)[0]


def decode_tokens(
    loop: Loop,
    params: Params,
    keys: Array,
    tokens: Array,
    oracle: Oracle,
    selector: Selector,
    temperature: Array | float,
) -> tuple[SampleResult, Array]:
    """`decode`, and the log-probability of each token, float32 [B, L], nats: 0 where given."""
    check_loop(loop, tokens, selector)
    traced = None if is_greedy(temperature) else jnp.asarray(temperature, jnp.float32)
    given, classes = (loop, params, keys, tokens, as_tree(oracle)), classes_in((oracle, selector))
    return _decode(*given, selector, traced, classes=classes)


def check_loop(loop: Loop, tokens: Array, selector: Selector) -> None:
    """InputError for what is no selector, or a corrector of blocks."""
    check_selector(selector)
    if isinstance(selector, Corrector | Doubter) and loop.block_length < tokens.shape[1]:
        raise InputError(f"{type(selector).__name__} corrects whole sequences: give block_length=None")


@functools.partial(jax.jit, static_argnames=("loop", "classes"))
def _decode(
    loop: Loop,
    params: Params,
    keys: Array,
    x_init: Array,
    oracle: Any,
    selector: Selector,
    temperature: Array | None,
    *,
    classes: Any,
) -> tuple[SampleResult, Array]:
    del classes  # part of jit's cache key only
    end = run(loop, params, selector, oracle, keys, init(loop, x_init, selector), temperature)
    log_prob = jnp.where(has_unknown_ids(x_init, loop.network), jnp.nan, end.log_prob.sum(axis=-1))
    return SampleResult(end.tokens, end.reveal_step, log_prob, end.nfe), end.log_prob
