"""What happened at each network call of a sampler, for those who look at it afterwards.

A strict sampler's result says it all: what was masked at a call follows from `reveal_step`. One that takes tokens back
leaves no trace of them in its result; `Recorded` keeps what its network was shown.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from mdm_jax.checks import call, check_mask_id, check_network
from mdm_jax.confidence import read_confidence
from mdm_jax.errors import InputError
from mdm_jax.logits import scored_nll
from mdm_jax.models.looped import LoopedDenoiser
from mdm_jax.sampling import SampleResult
from mdm_jax.typing import Array, Denoiser, Features, Params

TOKENS = 1 << 14
"""Tokens that a network call of a replay is given, at most, unless one sequence has more."""
LOOP_TOKENS = 1 << 11
"""The same where loops are counted: a call lasts until its slowest row settles."""


class Trace(NamedTuple):
    """A decoding, call by call."""

    tokens: NDArray[np.int32]
    """int32 [T + 1, B, L]: what each network call was given, and at last the result"""
    mask_id: int

    @property
    def is_masked(self) -> NDArray[np.bool_]:
        """Which positions held a mask, bool [T + 1, B, L]."""
        return self.tokens == self.mask_id


class AtReveal(NamedTuple):
    """What the network said of each position at the call that revealed it; NaN where none did."""

    token_prob: NDArray[np.float32]
    """float32 [B, L]: the probability of the token that was written, at temperature 1"""
    entropy: NDArray[np.float32]
    """float32 [B, L], nats"""


def trace_of(tokens: ArrayLike, reveal_step: ArrayLike, *, mask_id: int) -> Trace:
    """The calls of a strict sampler, from its result: a position was masked until the call that revealed it.

    Args:
      tokens: int [B, L], the result's.
      reveal_step: int [B, L], the result's.
      mask_id: the mask token's id.
    """
    steps = np.asarray(reveal_step)
    calls = np.arange(steps.max(initial=-1) + 2)[:, None, None]
    return Trace(np.where(steps >= calls, mask_id, np.asarray(tokens)).astype(np.int32), mask_id)


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """A denoiser that keeps what it is given, to be handed to a sampler once in the place of its own.

        recorded = Recorded(denoiser)
        result = remasking_sample(recorded, params, key, x_init, mask_id=0, num_steps=8)
        trace = recorded.trace(result, mask_id=0)

    Attributes:
      denoiser: the network.
      seen: the tokens of each call, int32 [B, L].
    """

    denoiser: Denoiser
    seen: list[NDArray[np.int32]] = dataclasses.field(default_factory=list)

    @property
    def num_tokens(self) -> Any:
        """Ids that the denoiser may be given, if it says."""
        return getattr(self.denoiser, "num_tokens", None)

    def __call__(self, params: Params, tokens: Array) -> Array | Features:
        """As the denoiser."""
        jax.debug.callback(lambda tokens: self.seen.append(np.array(tokens)), tokens, ordered=True)
        return call(self.denoiser, params, tokens, None)

    def trace(self, result: SampleResult, *, mask_id: int) -> Trace:
        """The calls of a sampler that has given this result; forgets them.

        Raises:
          InputError: the network was called for another result too, or not at all.
        """
        tokens = np.asarray(result.tokens)  # the result is there, so the calls are over
        jax.effects_barrier()
        seen, nfe = list(self.seen), int(result.nfe)
        self.seen.clear()
        if len(seen) != nfe or any(given.shape != tokens.shape for given in seen):
            raise InputError(f"{len(seen)} network calls were recorded, and the result has {nfe}: record one result")
        return Trace(np.stack([*seen, tokens]).astype(np.int32), mask_id)


def at_reveal(denoiser: Denoiser, params: Params, trace: Trace) -> AtReveal:
    """Asks the network once more what it said of each position when its token was last revealed.

    It is called on all that it was shown, many calls at a time: as much work as the decoding, without its loop.

    Args:
      denoiser: as for `sample`.
      params: its parameters.
      trace: of `trace_of` or `Recorded.trace`.

    Returns:
      AtReveal, with NaN where a token was given.

    Raises:
      InputError: the denoiser's output is not usable.
    """
    check_network(denoiser, "denoiser")
    mask_id = check_mask_id(trace.mask_id, denoiser)
    num_calls, batch, length = trace.tokens.shape[0] - 1, *trace.tokens.shape[1:]
    found = AtReveal(*(np.full((batch, length), np.nan, np.float32) for _ in AtReveal._fields))
    is_revealed = trace.is_masked[:-1] & ~trace.is_masked[1:]
    size = max(1, min(num_calls, TOKENS // max(batch * length, 1)))
    for first in range(0, num_calls, size):
        calls = np.minimum(np.arange(first, first + size), num_calls - 1)  # all chunks of one shape
        rows = [np.reshape(part, (size * batch, length)) for part in (trace.tokens[calls], trace.tokens[calls + 1])]
        wanted = is_revealed[calls].reshape(size * batch, length)
        read = _read(denoiser, mask_id, params, *map(jnp.asarray, (*rows, wanted)))
        for i, step in enumerate(calls):
            for field, values in zip(found, read, strict=True):
                here = np.asarray(values).reshape(size, batch, length)[i]
                field[is_revealed[step]] = here[is_revealed[step]]
    return found


def loops_of(denoiser: LoopedDenoiser, params: Params, trace: Trace) -> float:
    """The loops that a looped network took for a row with masks, averaged over rows and calls.

    Args:
      denoiser: the network.
      params: its parameters, as from `with_loops`.
      trace: of `trace_of` or `Recorded.trace`.

    Raises:
      InputError: there was no call.
    """
    is_masked = trace.is_masked[:-1]
    shown = trace.tokens[:-1][is_masked.any(axis=-1)]
    if not len(shown):
        raise InputError("no row of the trace has a mask, so no loop was taken")
    shown = shown[np.argsort((shown == trace.mask_id).sum(axis=-1), kind="stable")]  # rows of similar work together
    size = max(1, LOOP_TOKENS // shown.shape[1])
    starts = [min(first, max(len(shown) - size, 0)) for first in range(0, len(shown), size)]  # all of one shape
    loops, count = np.zeros(len(shown), np.int32), jax.jit(denoiser.loops)
    for first in starts:
        loops[first : first + size] = count(params, jnp.asarray(shown[first : first + size]))
    return float(loops.mean())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read(
    denoiser: Denoiser, mask_id: int, params: Params, x_t: Array, written: Array, is_revealed: Array
) -> tuple[Array, Array]:
    """The probability of what was written, and the entropy, float32 [B, L]."""
    output = call(denoiser, params, x_t, is_revealed)
    keys = jax.vmap(jax.random.key)(jnp.zeros(x_t.shape[0], jnp.uint32))  # nothing is drawn
    entropy = read_confidence(keys, output, None, mask_id, is_revealed).entropy
    return jnp.exp(-scored_nll(output, written, is_revealed, mask_id=mask_id)), entropy
