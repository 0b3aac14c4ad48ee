"""Changes to what a network says, before anything is read off it: what is never predicted, nuclei, guidance.

An edit is a hashable function of logits, float32 [B, P, V] to the same, where -inf is a token that cannot be. The loop
applies it to the logits that a step reads, some positions at a time, so that a large vocabulary is never whole in
memory. Guidance needs a second call of the network, and wraps that instead.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import check_mask_id
from mdm_jax.errors import InputError
from mdm_jax.loop import Network, Reading, State
from mdm_jax.ranges import FLOAT32, Range, check_number
from mdm_jax.typing import Array, Features, Params

Edit = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Suppress:
    """Ids that are never predicted. Those that are no token of the logits are never predicted in any case."""

    ids: tuple[int, ...]

    def __call__(self, logits: Array) -> Array:
        """Their logits are -inf."""
        is_off = np.isin(np.arange(logits.shape[-1]), self.ids)
        return jnp.where(is_off[None, None], -jnp.inf, logits)


@dataclasses.dataclass(frozen=True)
class TopP:
    """The nucleus: the fewest likeliest tokens that together have probability p, at temperature 1; ties all stay.

    Source: Holtzman et al. 2020 (arXiv:1904.09751).
    """

    p: float

    def __call__(self, logits: Array) -> Array:
        """The other logits are -inf."""
        probs = jax.nn.softmax(logits, axis=-1)
        falling = -jnp.sort(-probs, axis=-1)
        is_inside = jnp.cumsum(falling, axis=-1) - falling < self.p
        least = jnp.where(is_inside, falling, jnp.inf).min(axis=-1, keepdims=True)
        return jnp.where(probs < least, -jnp.inf, logits)  # what is no number stays, and is seen as such


@dataclasses.dataclass(frozen=True)
class Chain:
    """One edit after the other."""

    edits: tuple[Edit, ...]

    def __call__(self, logits: Array) -> Array:
        """The last one's logits."""
        for edit in self.edits:
            logits = edit(logits)
        return logits


def edit_of(suppressed: Sequence[int], ends: Sequence[int], top_p: float, num_tokens: int) -> Edit | None:
    """The edit that leaves out some ids, and then all but the nucleus of the others; None if that changes nothing.

    Args:
      suppressed: ids that are left out, below `num_tokens`.
      ends: further ids that are left out, whether the model has them or not.
      top_p: the nucleus' probability.
      num_tokens: ids that the model has.

    Raises:
      InputError: a suppressed id is none of the model's, or `top_p` is not above 0 and at most 1.
    """
    check_number("top_p", top_p, Range(above=0, most=1))
    given = [check_mask_id(number, name="a suppressed id") for number in suppressed]
    if given and max(given) >= num_tokens:
        raise InputError(
            f"a suppressed id is {max(given)}, and the model's vocabulary has {num_tokens} tokens, with the ids 0 to "
            f"{num_tokens - 1}"
        )
    ids = tuple(sorted({*given, *ends}))
    edits: tuple[Edit, ...] = (*([Suppress(ids)] if ids else []), *([TopP(float(top_p))] if top_p < 1 else []))
    return Chain(edits) if edits else None


@dataclasses.dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: logits_u + (w + 1) (logits - logits_u), where logits_u do not see the prompt.

    The second call has masks in place of all that is given. Both count as one in `nfe`. Source: Nie et al. 2025
    (arXiv:2502.09992), `generate.py`.

    Attributes:
      network: what is guided.
      scale: w, at least 0.
      mask_id: the mask token's id.
      pad_id: the padding, which is no part of the prompt; None for none.
    """

    network: Network
    scale: float
    mask_id: int
    pad_id: int | None = None
    together: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("guidance", self.scale, Range(0, FLOAT32))

    @property
    def num_tokens(self) -> int | None:
        """Ids that the network may be given, if it says."""
        return self.network.num_tokens

    def init(self, batch: int, length: int) -> Any:
        """The memory of both calls, and what the first step found given, bool [B, L]."""
        return self.network.init(batch, length), self.network.init(batch, length), jnp.zeros((batch, length), bool)

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Both calls, and what they make together. Logits are linear in the hidden states, so these are combined."""
        here, there, is_given = state.memory
        # Later an end may have filled masks without a call.
        is_given = jnp.where(state.nfe == 0, state.tokens != self.mask_id, is_given)
        if self.pad_id is not None:
            is_given &= state.tokens != self.pad_id
        hidden_prompt = jnp.where(is_given, self.mask_id, state.tokens)
        with_prompt = self.network.read(params, state._replace(memory=here), is_read)
        without = self.network.read(params, state._replace(tokens=hidden_prompt, memory=there), is_read)
        memory = (with_prompt.memory, without.memory, is_given)
        if isinstance(with_prompt.output, Features):
            assert isinstance(without.output, Features)
            hidden = self._combine(with_prompt.output.hidden, without.output.hidden)
            return Reading(with_prompt.output._replace(hidden=hidden), memory)
        assert not isinstance(without.output, Features)
        return Reading(self._combine(with_prompt.output, without.output), memory)

    def _combine(self, x: Array, x_u: Array) -> Array:
        mixed = x_u.astype(jnp.float32) + (self.scale + 1) * (x.astype(jnp.float32) - x_u.astype(jnp.float32))
        return mixed.astype(x.dtype)
