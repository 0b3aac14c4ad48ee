"""What training minimises: a draw of `losses` and its likelihood, or that of an autoregressive model."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from mdm_jax.checks import call, check_tokens
from mdm_jax.draws import Draw, Focal, Skewed, Subset
from mdm_jax.logits import scored_nll
from mdm_jax.losses import nll
from mdm_jax.typing import Array, Denoiser, Params

Batch = dict[str, Array]
"""`tokens` int32 [B, L] and `is_prompt` bool [B, L]: the positions that are given."""


class Loss(NamedTuple):
    """A loss in two parts: what is drawn, for the whole batch, and what is computed, for any pairs of its rows."""

    draw: Callable[[Array, Batch], Any]
    """(key, batch) -> all that is random about the loss: a pytree of arrays [B, ...], whose rows may be in any order"""
    nll: Callable[..., Array]
    """(denoiser, params, some rows of what was drawn, from an even one on, *, paired) -> nats per sequence, float32
    [rows]; `paired`: rows 2k and 2k + 1 lie on one device"""


def masked_loss(mask_id: int, draw: Draw = Subset()) -> Loss:  # noqa: B008 (frozen)
    """A masked model's loss by its draw; `losses.Subset` has the lowest variance of those that bound the likelihood."""

    def of_batch(key: Array, batch: Batch) -> Any:
        return draw(key, check_tokens(batch["tokens"], "tokens"), batch["is_prompt"])

    return Loss(of_batch, partial(nll, mask_id=mask_id, draw=draw))


def skewed_loss(mask_id: int, *, skew: float = 3.0) -> Loss:
    """`masked_loss` of `losses.Skewed`."""
    return masked_loss(mask_id, Skewed(skew))


def reweighted_loss(mask_id: int, *, num_times: int = 20, alpha: float = 0.25, gamma: float = 1.0) -> Loss:
    """`masked_loss` of `losses.Focal`."""
    return masked_loss(mask_id, Focal(num_times, alpha, gamma))


def causal_loss() -> Loss:
    """Σ_i -log p(x^i | x^0, ..., x^{i-1}) over the tokens that are not given, for a causal network.

    Nothing precedes position 0, so it is never scored. Give it as prompt: where it is not, the loss per free token
    counts it as one that cost nothing. Give as prompt, too, the tokens that a network reads in groups: it predicts none
    of them.
    """

    def draw(key: Array, batch: Batch) -> Batch:
        return {"tokens": check_tokens(batch["tokens"], "tokens"), "is_prompt": batch["is_prompt"]}

    def nats(denoiser: Denoiser, params: Params, drawn: Batch, *, paired: bool) -> Array:
        tokens, is_scored = drawn["tokens"], ~drawn["is_prompt"][:, 1:]
        output = call(denoiser, params, tokens[:, :-1])
        return scored_nll(output, tokens[:, 1:], is_scored, mask_id=None).sum(axis=-1)

    return Loss(draw, nats)
