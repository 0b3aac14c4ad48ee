"""Networks of the loop that also judge the tokens that stand in a sequence: how likely each is right.

A masked model is trained to predict masks. What it says at a position whose token it sees is not
trained, so its quality has to come from elsewhere:

- `LeaveOneOut`: the probability of the token where it alone is masked again. No training is needed.
- `Filled`: its probability once all masks are filled in, by a network trained on its own answers
  (`--loss filled`).
- `Quality`: a head on the last hidden state that is trained for it (`--loss quality`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mdm_jax.blocks import take_positions
from mdm_jax.checks import call
from mdm_jax.confidence import read_confidence
from mdm_jax.errors import InputError, shown
from mdm_jax.logits import float_logits, scored_nll, token_nll
from mdm_jax.loop import Reading, State
from mdm_jax.randomness import row_keys
from mdm_jax.sampling import Whole
from mdm_jax.typing import Array, Features, Params

HEAD = "quality"
"""Where a network's parameters hold the quality head: a kernel [D] and a bias [1]."""


@dataclasses.dataclass(frozen=True)
class LeaveOneOut(Whole):
    """Quality: p_theta(x^i | all others), with position i masked and nothing else changed.

    Each call masks one token in every row, so a step makes as many further calls as the row with
    the most tokens to judge has. Source: Feng et al. 2025 (WINO). Deviation: there one call judges
    all tokens, through queries that do not attend to their own; but from the second layer on the
    other positions have seen that token, so it does not stay hidden. Here it does.
    """

    mask_id: int

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Predicts the masks that are read, and judges the tokens that are, one in each call."""
        is_masked, is_judged = _parts(state, is_read, self.mask_id)
        output = call(self.denoiser, params, state.tokens, is_masked)
        judged_first = jnp.argsort(~is_judged, axis=-1, stable=True).astype(jnp.int32)
        number = is_judged.sum(axis=-1, dtype=jnp.int32)

        def judge(i: Array, quality: Array) -> Array:
            position = jax.lax.dynamic_slice_in_dim(judged_first, i, 1, axis=1)
            is_here = (jnp.arange(quality.shape[1], dtype=jnp.int32)[None] == position) & (i < number)[:, None]
            output = call(self.denoiser, params, jnp.where(is_here, self.mask_id, state.tokens), is_here)
            logits = float_logits(take_positions(output, position), self.mask_id)
            nats = token_nll(logits, jnp.take_along_axis(state.tokens, position, axis=1))
            return jnp.where(is_here, jnp.exp(-nats), quality)

        most = number.max()
        quality = jax.lax.fori_loop(0, most, judge, jnp.zeros(is_read.shape, jnp.float32))
        return Reading(output, (), quality, 1 + most)


@dataclasses.dataclass(frozen=True)
class Filled(Whole):
    """Quality: p_theta(x^i | y), y the sequence with its masks filled by the likeliest tokens.

    It takes a second call in steps in which a token is judged. Source: Schiff et al. 2026 (ProSeCo,
    arXiv:2602.11590). Deviation: there the likeliest tokens overwrite others; here a token of low
    quality is masked again.
    """

    mask_id: int

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Predicts the masks that are read, fills them in, and judges the tokens that are read."""
        is_masked, is_judged = _parts(state, is_read, self.mask_id)
        output = call(self.denoiser, params, state.tokens, is_masked)

        def judge() -> Array:
            filled = likeliest(output, self.mask_id, is_masked)
            seen = call(self.denoiser, params, jnp.where(is_masked, filled, state.tokens), is_judged)
            return jnp.exp(-scored_nll(seen, state.tokens, is_judged, mask_id=self.mask_id))

        is_any = is_judged.any()
        quality = jax.lax.cond(is_any, judge, lambda: jnp.zeros(is_read.shape, jnp.float32))
        return Reading(output, (), quality, 1 + is_any.astype(jnp.int32))


@dataclasses.dataclass(frozen=True)
class Quality(Whole):
    """Quality: what a trained head makes of the last hidden state. It takes no further call.

    Source: Kim et al. 2025 (PRISM, arXiv:2510.01384).
    """

    mask_id: int

    def read(self, params: Params, state: State, is_read: Array) -> Reading:
        """Predicts and judges in one call."""
        output = call(self.denoiser, params, state.tokens, is_read)
        return Reading(output, (), jax.nn.sigmoid(quality_logits(params, output)))


JUDGES: dict[str, type[LeaveOneOut] | type[Filled] | type[Quality]] = {
    "leave-one-out": LeaveOneOut,
    "filled": Filled,
    "quality": Quality,
}
"""By name."""


def judge_named(name: str) -> type[LeaveOneOut] | type[Filled] | type[Quality]:
    """The judge of this name; InputError for another."""
    if not isinstance(name, str) or name not in JUDGES:
        raise InputError(f"judge must be one of {', '.join(JUDGES)}; got {shown(name)}")
    return JUDGES[name]


def quality_logits(params: Params, output: Array | Features) -> Array:
    """The logit of the probability that each token is right, float32 [B, L].

    Args:
      params: of the network, with the head at `HEAD`.
      output: Features of the tokens.

    Raises:
      InputError: there is no head, or the network gives logits in place of Features.
    """
    head: Any = params.get(HEAD) if isinstance(params, Mapping) else None
    if head is None:
        raise InputError(
            "the network has no quality head: train one with --loss quality, from its weights (--init-from)"
        )
    if not isinstance(output, Features):
        raise InputError("a quality head reads hidden states, but the network gives logits: it must give Features")
    kernel, bias = (head[name].astype(jnp.float32) for name in ("kernel", "bias"))
    return (output.hidden.astype(jnp.float32) * kernel[None, None]).sum(axis=-1) + bias[None]


def likeliest(output: Array | Features, mask_id: int, is_read: Array) -> Array:
    """The likeliest tokens at the positions that are read, int32 [B, L], 0 elsewhere."""
    keys = row_keys(jax.random.key(0), len(is_read))  # not used: nothing is drawn
    return read_confidence(keys, output, None, mask_id, is_read).token


def _parts(state: State, is_read: Array, mask_id: int) -> tuple[Array, Array]:
    """The masks and the tokens that are read, bool [B, L] each."""
    is_masked = state.tokens == mask_id
    return is_read & is_masked, is_read & ~is_masked
