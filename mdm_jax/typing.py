"""Types that modules share: aliases, records and protocols."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax

Array: TypeAlias = jax.Array
Params: TypeAlias = Any
"""A pytree of arrays, the first argument of a denoiser."""


class Features(NamedTuple):
    """The output of a denoiser before the head: the logits are `hidden @ head`."""

    hidden: Array
    """float [B, L, D]"""
    head: Array
    """float [D, V]"""


class Confidence(NamedTuple):
    """What a step knows of each position; every field is [B, L].

    Probabilities are p_theta(. | x_t) at temperature 1. A sampler reads open positions only: in the
    prompt, at revealed positions and in other blocks the fields are 0.
    """

    top_prob: Array
    """float32: the largest probability"""
    second_prob: Array
    """float32: the second largest"""
    entropy: Array
    """float32, nats"""
    token: Array
    """int32: the token to reveal, drawn or the argmax"""
    token_prob: Array
    """float32: the probability of `token`"""
    token_log_prob: Array | None = None
    """float32, nats: log of `token_prob`, without the underflow of float32 probabilities below
    exp(-87); NaN if the logits held NaN or +inf, the temperature was invalid, or no token was
    possible"""


Denoiser: TypeAlias = Callable[[Params, Array], Array | Features]
"""(params, tokens int32 [B, L]) -> logits float [B, L, V], or Features. It takes no time: p_theta(.
| x_t)."""


@runtime_checkable
class FeatureDenoiser(Protocol):
    """A Denoiser that can also give Features, from which logits are made only where they are read.

    Samplers and losses call its method `features`. If it is wrapped in a plain function they call
    the function, which makes all logits.
    """

    def __call__(self, params: Params, tokens: Array) -> Array | Features:
        """As for any Denoiser."""
        ...

    def features(self, params: Params, tokens: Array, is_read: Array | None = None) -> Features:
        """Features of tokens int32 [B, L].

        The hidden states may be any finite values where `is_read`, bool [B, L], is False. None
        reads all positions.
        """
        ...


Oracle: TypeAlias = Callable[[Array, Confidence], Array]
"""(key, confidence) -> real scores of the fields' shape; higher is revealed sooner. See `oracles`."""


class Selector(Protocol):
    """Chooses how many of the best-scored positions a step reveals. A frozen dataclass and pytree.

    Some members are optional. `num_steps` is the step of a block in which the sampler reveals all
    that is left; before it the plan may be 0 in any number of steps. A selector that plans without
    this number reveals at least one position in every step of a block from the 1,025th on. `waits`,
    with the arguments of `plan`, says whether the plan is 0, bool [B], at a lower cost.
    `perturb(keys, scores, j)` returns the scores that `choose` gets. A selector that remembers has
    `begin(batch, length)`, a pytree of arrays, and `remember(memory, confidence, is_open)`, which
    returns it anew after a network call; `choose` gets that as its last argument.
    """

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array | None:
        """The number of positions to reveal, int32 [B]; None if the network has to be called first.

        Args:
          key: typed keys [B], one per row (or a scalar key, which is folded with the row).
          j: int32 [B], the row's step in its block, from 1.
          n_0: int32 [B], masks in the block when it was opened.
          left: int32 [B], masks that are left in it.
        """
        ...

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Any) -> Array:
        """The positions to reveal, bool [B, L], among the open ones; `num_reveal` if it is planned."""
        ...


@runtime_checkable
class Corrector(Protocol):
    """A Selector that may also choose revealed positions again, and mask others again.

    All targets are open to it, the positions that were masked at the start. It ends after
    `num_steps` steps, and its last step chooses every target. The sequence is one block.
    """

    num_steps: Any

    def take_back(self, scores: Array, confidence: Confidence, is_open: Array, is_chosen: Array) -> Array:
        """Positions to mask again, bool [B, L]; those that are open and not chosen are masked."""
        ...


@runtime_checkable
class Doubter(Protocol):
    """A Selector that may also mask revealed tokens again, by their quality, but never overwrites one.

    Masks alone are open to it. A step that reveals c positions of a row masks at most c - 1 others
    of it, those of lowest quality. So each step makes progress, and the sampler ends. The sequence
    is one block.
    """

    def judges(self, num_reveal: Array) -> Array:
        """Rows whose revealed tokens the network shall judge, bool [B].

        Args:
          num_reveal: int32 [B], the planned number, or without a plan all masks that are left.
        """
        ...

    def doubts(self, quality: Array) -> Array:
        """Which tokens may be masked again, bool [B, L]; `quality` is a probability that each is right."""
        ...
