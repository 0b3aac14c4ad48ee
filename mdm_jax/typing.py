"""The vocabulary of the library: aliases, and the two records that modules hand to each other."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax

Array: TypeAlias = jax.Array
Params: TypeAlias = Any
"""A pytree of arrays: whatever the denoiser takes as its first argument."""


class Features(NamedTuple):
    """A denoiser's output before the head: the logits are `hidden @ head`, made by whoever needs them."""

    hidden: Array
    """float [B, L, D]"""
    head: Array
    """float [D, V]"""


class Confidence(NamedTuple):
    """What a step knows of each position, every field [B, L]; probabilities are p_theta(. | x_t) at temperature 1.

    In a sampler only open positions are read: all fields are 0 where a token is given, revealed, or in another block.
    """

    top_prob: Array
    """float32: the largest probability"""
    second_prob: Array
    """float32: the second largest"""
    entropy: Array
    """float32, nats"""
    token: Array
    """int32: the token that would be revealed, drawn or the argmax"""
    token_prob: Array
    """float32: the probability of `token`"""
    token_log_prob: Array | None = None
    """float32, nats: log of `token_prob`, kept apart since float32 probabilities end at exp(-87); NaN where the logits
    or the temperature were not sound, or no token was possible"""


Denoiser: TypeAlias = Callable[[Params, Array], Array | Features]
"""(params, tokens int32 [B, L]) -> logits float [B, L, V], or Features. It sees no time: p_theta(. | x_t)."""


@runtime_checkable
class FeatureDenoiser(Protocol):
    """A Denoiser that can also give Features, from which logits are made only where they are read.

    Samplers and losses call its method `features` instead of it. Wrapped in a plain function it still works: it then
    makes all logits.
    """

    def __call__(self, params: Params, tokens: Array) -> Array | Features:
        """As any Denoiser."""
        ...

    def features(self, params: Params, tokens: Array, is_read: Array | None = None) -> Features:
        """Features of tokens int32 [B, L].

        Where `is_read`, bool [B, L], is False the hidden states may be anything finite; None reads all.
        """
        ...


Oracle: TypeAlias = Callable[[Array, Confidence], Array]
"""(key, confidence) -> scores float32 of the fields' shape; the higher is revealed the sooner. See `oracles`."""


class Selector(Protocol):
    """How many of the best-scored positions a step reveals. A frozen dataclass, registered as a pytree.

    One that plans should have `num_steps`, the step of a block by which it has planned all its masks: until then it may
    plan nothing for as long as it likes, and there the sampler reveals what is left. Without it the sampler reveals a
    position in every step from the 1,025th of a block on. It may have `waits`, with the arguments of `plan`: whether
    that is 0, bool [B], for less. It may have `perturb(keys, scores, j)`, which gives the scores that `choose` sees.
    """

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array | None:
        """Number to reveal, int32 [B], decided before the network is called; None if it takes the network to decide.

        Args:
          key: typed keys [B], one per row (or a scalar key, folded with the row).
          j: int32 [B], the row's step in its block, from 1.
          n_0: int32 [B], masks in the row's block when the block was opened.
          left: int32 [B], masks left in it now.
        """
        ...

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Any) -> Array:
        """Positions to reveal, bool [B, L]: a subset of `is_open`, `num_reveal` of them if that was planned."""
        ...


@runtime_checkable
class Corrector(Protocol):
    """A Selector that corrects: it may choose revealed positions again, and mask others again.

    Open to it are all targets, the positions that were masked at the start. It ends after `num_steps`, whose last step
    chooses every target. The sequence is one block.
    """

    num_steps: Any

    def take_back(self, scores: Array, confidence: Confidence, is_open: Array, is_chosen: Array) -> Array:
        """Positions to mask again, bool [B, L]; of these, the sampler masks what is open and not chosen."""
        ...
