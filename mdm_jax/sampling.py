"""Sampling from a masked diffusion model: one jitted loop, in which an oracle orders and a selector counts.

Each step: the selector plans how many positions of the open block to reveal; the network is called if any row reveals
one; the oracle scores the open positions; the best of them take their tokens. Source: Kim et al. 2025, section 2.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mdm_jax.checks import call, check_callable, check_mask_id, check_network, check_tokens, has_unknown_ids, is_tree
from mdm_jax.confidence import is_greedy
from mdm_jax.errors import InputError, shown
from mdm_jax.loop import Loop, Reading, State, init, run
from mdm_jax.oracles import margin, random
from mdm_jax.randomness import row_keys
from mdm_jax.schedules import Schedule
from mdm_jax.selection import Binomial, PerStep, check_selector, classes_in
from mdm_jax.typing import Array, Corrector, Denoiser, Oracle, Params, Selector


class SampleResult(NamedTuple):
    """What a sampler gives back."""

    tokens: Array
    """int32 [B, L], without masks; given tokens as they came"""
    reveal_step: Array
    """int32 [B, L]: index of the network call that revealed the position, from 0; -1 where given"""
    log_prob: Array
    """float32 [B], nats: sum of log p_theta (temperature 1) of the tokens at the moment they were revealed"""
    nfe: Array
    """int32 scalar: network calls made for the batch"""


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

    What is unmasked in `x_init` is the prompt and comes back untouched. Rows are independent: neither the other rows
    nor padding on the right change a row's tokens, but for ties within the rounding of the network's products. The
    first call of a shape compiles; denoiser, oracle, the selector's class and schedule, mask_id, block_length and
    whether the temperature is 0 are static, all else is traced.

    Args:
      denoiser: the network; hashable, and the same object (or an equal one) in every call. If it has a method
        `features` (`typing.FeatureDenoiser`), logits are made only where they are read.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted.
      mask_id: the mask token's id, a Python int >= 0; if it is below V, it is never predicted.
      oracle: scores of positions; see `oracles`.
      selector: how many to reveal in a step; see `selection`.
      temperature: of the tokens drawn; 0 takes the likeliest. The oracle sees temperature 1 whatever it is.
      block_length: semi-autoregressive: only the leftmost block of this length that holds a mask is open.
        None opens the whole sequence.

    Returns:
      SampleResult.

    Raises:
      InputError: a shape, a dtype or an option is off, or the denoiser's output is.
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
    """The reverse process itself: each mask is revealed with probability (α_s - α_t) / (1 - α_t), its token drawn.

    Step j = 1..T goes from t = 1 - (j - 1)/T to s = 1 - j/T. It is `sample` with the random oracle and a binomial
    number of positions, which has the same law; steps that choose no position call no network.
    Source: Kim et al. 2025, section 2.

    Args:
      denoiser: the network.
      params: its parameters.
      key: a typed key, scalar or one per row [B]; consumed.
      x_init: int [B, L], `mask_id` wherever a token is wanted.
      mask_id: the mask token's id.
      schedule: α_t.
      num_steps: T.

    Returns:
      SampleResult.

    Raises:
      InputError: as `sample`.
    """
    selector = Binomial(num_steps, schedule)
    return sample(denoiser, params, key, x_init, mask_id=mask_id, oracle=random, selector=selector)


def check_arguments(
    network: Any, key: Array, x_init: ArrayLike, mask_id: int, oracle: Oracle
) -> tuple[Array, Array, int]:
    """What every sampler is given, as tokens int32 [B, L], keys [B] and the mask's id; InputError if it is unusable."""
    check_network(network, "denoiser")
    tokens = check_tokens(x_init, "x_init", network)
    check_callable(oracle, "oracle")
    if not is_tree(oracle):
        check_network(oracle, "oracle")
    return tokens, row_keys(key, tokens.shape[0]), check_mask_id(mask_id, network)


def check_block_length(block_length: int | None, length: int) -> int:
    """The length of the blocks of a sequence; InputError unless it is a whole number of at least 1, or None for one."""
    if block_length is None:
        return length
    if isinstance(block_length, bool) or not isinstance(block_length, int | np.integer) or block_length < 1:
        raise InputError(f"block_length must be a whole number of at least 1, or None; got {shown(block_length)}")
    return int(min(block_length, length))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The network of `sample`: each call reads whole sequences, and nothing is kept."""

    denoiser: Denoiser
    together: ClassVar[bool] = False

    @property
    def num_tokens(self) -> int | None:
        """Ids that the denoiser may be given, if it says."""
        return getattr(self.denoiser, "num_tokens", None)

    def init(self, batch: int, length: int) -> Any:
        """Nothing."""
        return ()

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """All positions."""
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
    """Runs the loop to its end, jitted: what every strict or correcting sampler comes to."""
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
    tree = oracle if is_tree(oracle) else jax.tree_util.Partial(oracle)
    return _decode(loop, params, keys, tokens, tree, selector, traced, classes=classes_in((oracle, selector)))


def check_loop(loop: Loop, tokens: Array, selector: Selector) -> None:
    """InputError for what is no selector, or a corrector of blocks."""
    check_selector(selector)
    if isinstance(selector, Corrector) and loop.block_length < tokens.shape[1]:
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
    del classes  # part of the program's identity, and no more
    plain = oracle.func if isinstance(oracle, jax.tree_util.Partial) else oracle
    end = run(loop, params, selector, plain, keys, init(loop, x_init), temperature)
    log_prob = jnp.where(has_unknown_ids(x_init, loop.network), jnp.nan, end.log_prob.sum(axis=-1))
    return SampleResult(end.tokens, end.reveal_step, log_prob, end.nfe), end.log_prob
