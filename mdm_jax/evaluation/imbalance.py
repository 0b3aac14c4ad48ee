"""The error of a model's conditionals at latents and at observations, against exact ones or a better model's.

Source: Kim et al. 2025, sections 3.3 and C.2.1, Figure 2.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.checks import call
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.logits import scored_nll
from mdm_jax.typing import Array, Denoiser, Params


def draw_masks(
    rng: np.random.Generator, num: int, num_latents: int, num_observations: int, masked_latents: int
) -> NDArray[np.bool_]:
    """Masks l random latents and round(l P / N) random observations, bool `[num, N + P]`.

    Args:
      rng: the random generator.
      num: the number of sequences.
      num_latents: N.
      num_observations: P.
      masked_latents: l.

    Raises:
      InputError: l is not from 1 to N - 1.
    """
    if not 1 <= masked_latents < num_latents:
        raise InputError(
            f"masked_latents={masked_latents}: give 1 to {num_latents - 1}, so that some latents are shown"
        )
    parts = []
    for size, masked in (
        (num_latents, masked_latents),
        (num_observations, round(masked_latents * num_observations / num_latents)),
    ):
        parts.append(np.argsort(np.argsort(rng.random((num, size)), axis=1), axis=1) < masked)
    return np.concatenate(parts, axis=1)


def log_probs(
    denoiser: Denoiser,
    params: Params,
    x_0: NDArray[np.integer],
    is_masked: NDArray[np.bool_],
    *,
    mask_id: int,
    batch_size: int = 250,
) -> NDArray[np.float32]:
    """The model's log p_theta(x_0^i | x_0[M]) of every masked position, nats; 0 elsewhere.

    Args:
      denoiser: the network, or a `BayesDenoiser`. It must be hashable.
      params: its parameters.
      x_0: int [num, L], without masks.
      is_masked: bool [num, L'], L' ≤ L. Later positions are not masked.
      mask_id: the id of the mask token.
      batch_size: the number of sequences in a batch.

    Returns:
      float32 [num, L'].

    Raises:
      InputError: there are no sequences, or `batch_size` is below 1.
    """
    num, width = is_masked.shape
    if not num or batch_size < 1:
        raise InputError(f"{num} sequences, {batch_size} at a time: give at least one of each")
    missing = -num % min(batch_size, num)
    tokens = np.pad(x_0.astype(np.int32), ((0, missing), (0, 0)), mode="edge")
    hidden = np.pad(is_masked, ((0, missing), (0, x_0.shape[1] - width)))
    parts = [
        np.asarray(
            _log_probs(denoiser, params, tokens[i : i + batch_size], hidden[i : i + batch_size], mask_id=mask_id)
        )
        for i in range(0, len(tokens), batch_size)
    ]
    return np.concatenate(parts)[:num, :width]


@functools.partial(jax.jit, static_argnames=("denoiser", "mask_id"))
def _log_probs(denoiser: Denoiser, params: Params, x_0: Array, hidden: Array, *, mask_id: int) -> Array:
    output = call(denoiser, params, jnp.where(hidden, mask_id, x_0))
    return -scored_nll(output, x_0, hidden, mask_id=mask_id)


class Errors(NamedTuple):
    """Squared differences of log-probabilities, nats²: a mean over sequences, and the ends of its 95% interval.

    The interval is for one model and one set of triples. Others may differ by more.
    """

    positions: NDArray[np.float64]
    """float [L, 3]: each position, over the sequences in which it is masked; NaN if it never is"""
    latents: tuple[float, float, float] | None
    """the masked latents; None if there are none"""
    observations: tuple[float, float, float] | None
    """the masked observations; None if there are none"""


def errors(
    log_p: NDArray[np.floating], log_q: NDArray[np.floating], is_masked: NDArray[np.bool_], num_latents: int
) -> Errors:
    """E |log p_theta(x_0^i | x_0[M]) - log q(x_0^i | x_0[M])|² for each position.

    The paper writes a norm without its index set. Here only the true token counts: the exact q gives other tokens
    probability 0, and no network's log-probability is near -inf.

    Args:
      log_p: the model's log-probabilities, float [num, L], from `log_probs`.
      log_q: those of the exact conditionals, or of a better model.
      is_masked: bool [num, L].
      num_latents: N.
    """
    squared = np.where(is_masked, np.square(log_p.astype(np.float64) - log_q), 0)

    def summary(values: NDArray[np.float64]) -> tuple[float, float, float] | None:
        return (float(values.mean()), *mean_interval(values)) if len(values) else None

    def part(columns: slice) -> tuple[float, float, float] | None:
        masked = is_masked[:, columns].sum(axis=1)
        return summary(squared[:, columns].sum(axis=1)[masked > 0] / masked[masked > 0])

    columns = zip(squared.T, is_masked.T, strict=True)
    positions = np.array([summary(values[masked]) or (np.nan,) * 3 for values, masked in columns])
    return Errors(positions, part(slice(0, num_latents)), part(slice(num_latents, None)))
