"""What training minimises: a draw and its likelihood, or the likelihood of an autoregressive model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mdm_jax.checks import call, check_mask_id, check_tokens
from mdm_jax.confidence import read_confidence
from mdm_jax.draws import DRAWS, Draw, Focal, Masked, Skewed, Subset
from mdm_jax.logits import scored_nll
from mdm_jax.losses import nll
from mdm_jax.masking import mask_where
from mdm_jax.randomness import row_keys
from mdm_jax.training.aligned import Aligned, Pool
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.own_answers import Filled, Quality
from mdm_jax.typing import Array, Confidence, Denoiser, Params

AnyDraw = Draw | Aligned | Filled | Quality | EveryLoop

NAMED: dict[str, AnyDraw] = {**DRAWS, "aligned": Aligned(), "filled": Filled(), "quality": Quality()}
"""The draws that training takes, by name."""

Batch = dict[str, Array]
"""`tokens` int32 [B, L] and `is_prompt` bool [B, L]: the positions that are given."""


class Loss(NamedTuple):
    """A loss in two parts: what is drawn for the whole batch, and what is computed of any pairs of its rows."""

    draw: Callable[..., Any]
    """(key, batch) -> all that is random about the loss: a pytree of arrays [B, ...], with the rows in any order. With
    a pool: (key, batch, pool) -> the same with the rows in place, and the pool that they came from"""
    nll: Callable[..., Any]
    """(denoiser, params, rows of one draw from an even index on, *, paired) -> nats per sequence, float32 [rows];
    `paired`: rows 2k and 2k + 1 lie on one device. With a pool: nats, and what `advance` reads"""
    init: Callable[[Batch], Any] | None = None
    """batch -> the first pool, arrays [B, ...] with a field `is_prompt`; None for a loss without one"""
    advance: Callable[..., Any] | None = None
    """(key, pool, the second output of `nll` for all rows) -> the next pool"""


@dataclasses.dataclass(frozen=True)
class _Given:
    """A function with its first arguments, as `functools.partial`; but those of equal arguments are equal."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.function(*self.arguments, *arguments, **options)


def masked_loss(mask_id: int, draw: AnyDraw = Subset()) -> Loss:  # noqa: B008 (frozen)
    """A masked model's loss by its draw; `draws.Subset` has the lowest variance of those that bound the likelihood.

    Losses of equal arguments are equal, so that jit compiles once where one is a static argument.
    """
    mask_id = check_mask_id(mask_id)
    if isinstance(draw, Aligned):
        init, advance = _Given(_aligned_init, (draw,)), _Given(type(draw).advance, (draw,))
        return Loss(_Given(_aligned_draw, (draw,)), _Given(_aligned_nats, (mask_id,)), init, advance)
    return Loss(_Given(_masked_draw, (draw,)), _Given(_masked_nats, (draw, mask_id)))


def _masked_draw(draw: Any, key: Array, batch: Batch) -> Any:
    return draw(key, check_tokens(batch["tokens"], "tokens"), batch["is_prompt"])


def _masked_nats(draw: Any, mask_id: int, denoiser: Denoiser, params: Params, drawn: Any, **options: bool) -> Array:
    own = draw.nll if isinstance(draw, Filled | Quality | EveryLoop) else functools.partial(nll, draw=draw)
    nats: Array = own(denoiser, params, drawn, mask_id=mask_id, **options)
    return nats


def _aligned_init(draw: Aligned, batch: Batch) -> Pool:
    return draw.init(batch["tokens"], batch["is_prompt"])


def _aligned_draw(draw: Aligned, key: Array, batch: Batch, pool: Pool) -> tuple[Masked, Pool]:
    return draw(key, check_tokens(batch["tokens"], "tokens"), batch["is_prompt"], pool)


def _aligned_nats(
    mask_id: int, denoiser: Denoiser, params: Params, masked: Masked, *, paired: bool
) -> tuple[Array, Confidence]:
    del paired
    output = call(denoiser, params, mask_where(masked.x_0, masked.is_masked, mask_id))
    nats = scored_nll(output, masked.x_0, masked.is_scored, mask_id=mask_id).sum(axis=-1)
    keys = row_keys(jax.random.key(0), len(nats))  # not used: tokens are the likeliest
    confidence = read_confidence(keys, jax.lax.stop_gradient(output), None, mask_id, masked.is_masked)
    return masked.weight * nats, confidence


def skewed_loss(mask_id: int, *, skew: float = 3.0) -> Loss:
    """`masked_loss` of `draws.Skewed`."""
    return masked_loss(mask_id, Skewed(skew))


def reweighted_loss(mask_id: int, *, num_times: int = 20, alpha: float = 0.25, gamma: float = 1.0) -> Loss:
    """`masked_loss` of `draws.Focal`."""
    return masked_loss(mask_id, Focal(num_times, alpha, gamma))


def causal_loss() -> Loss:
    """Σ_i -log p(x^i | x^0, ..., x^{i-1}) over the tokens that are not given, for a causal network.

    Position 0 has no context and is never scored. Mark it as prompt; otherwise the loss per free token counts it as a
    token of 0 nats. The same holds for tokens that a network reads in groups, which it does not predict.
    """
    return Loss(_causal_draw, _causal_nats)


def _causal_draw(key: Array, batch: Batch) -> Batch:
    return {"tokens": check_tokens(batch["tokens"], "tokens"), "is_prompt": batch["is_prompt"]}


def _causal_nats(denoiser: Denoiser, params: Params, drawn: Batch, *, paired: bool) -> Array:
    tokens, is_scored = drawn["tokens"], ~drawn["is_prompt"][:, 1:]
    output = call(denoiser, params, tokens[:, :-1])
    return scored_nll(output, tokens[:, 1:], is_scored, mask_id=None).sum(axis=-1)
