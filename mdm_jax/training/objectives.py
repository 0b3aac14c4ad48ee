"""What training minimises: a draw and its likelihood, or the likelihood of an autoregressive model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from mdm_jax.checks import call, check_mask_id, check_tokens
from mdm_jax.draws import DRAWS, Draw, Subset
from mdm_jax.logits import scored_nll
from mdm_jax.losses import nll
from mdm_jax.training.aligned import Aligned
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.own_answers import Filled, Quality
from mdm_jax.typing import Array, Denoiser, Params

AnyDraw = Draw | Aligned | Filled | Quality | EveryLoop
"""What training takes. Beyond a Draw, it may have two things:

- `nll(denoiser, params, rows of its draw, *, mask_id, paired)`: a likelihood of its own, float32 [rows];
- `init(x_0, is_prompt)` and `advance(key, pool, what)`: a pool, which is the draw's fourth argument and second result.
  Then `nll` gives the nats, and what `advance` reads.
"""

NAMED: dict[str, AnyDraw] = {**DRAWS, "aligned": Aligned(), "filled": Filled(), "quality": Quality()}
"""Draws by name."""

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
    drawn, nats = _Given(_draw, (draw,)), _Given(_nats, (draw, check_mask_id(mask_id)))
    if not hasattr(draw, "advance"):
        return Loss(drawn, nats)
    return Loss(drawn, nats, _Given(_init, (draw,)), _Given(type(draw).advance, (draw,)))


def _init(draw: Any, batch: Batch) -> Any:
    return draw.init(batch["tokens"], batch["is_prompt"])


def _draw(draw: Any, key: Array, batch: Batch, *pool: Any) -> Any:
    return draw(key, check_tokens(batch["tokens"], "tokens"), batch["is_prompt"], *pool)


def _nats(draw: Any, mask_id: int, denoiser: Denoiser, params: Params, drawn: Any, *, paired: bool = True) -> Any:
    own = getattr(draw, "nll", None) or functools.partial(nll, draw=draw)
    return own(denoiser, params, drawn, mask_id=mask_id, paired=paired)


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
