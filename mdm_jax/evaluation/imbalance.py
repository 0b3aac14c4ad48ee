"""How much worse a model is at some positions than at others: against the exact conditionals, or a better model.

Source: Kim et al. 2025, sections 3.3 and C.2.1, Figure 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.denoiser import call
from mdm_jax.errors import InputError
from mdm_jax.evaluation.intervals import mean_interval
from mdm_jax.scoring import scored_nll
from mdm_jax.typing import Denoiser, Params


def draw_masks(
    rng: np.random.Generator, num: int, num_latents: int, num_observations: int, masked_latents: int
) -> NDArray[np.bool_]:
    """Masks l random latents and round(l P / N) random observations, bool `[num, N + P]`.

    Args:
        rng: The generator.
        num: How many.
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
      denoiser: the network, or `BayesDenoiser`.
      params: its parameters.
      x_0: int [num, L], without masks.
      is_masked: bool [num, L'], L' ≤ L; positions behind are shown.
      mask_id: the mask token's id.
      batch_size: sequences at a time.

    Returns:
      float32 [num, L'].
    """
    width = is_masked.shape[1]
    hidden = np.pad(is_masked, ((0, 0), (0, x_0.shape[1] - width)))

    @jax.jit
    def score(params: Params, x_0: jax.Array, hidden: jax.Array) -> jax.Array:
        output = call(denoiser, params, jnp.where(hidden, mask_id, x_0))
        return -scored_nll(output, x_0, hidden, mask_id=mask_id)

    parts = [
        np.asarray(
            score(params, jnp.asarray(x_0[i : i + batch_size], jnp.int32), jnp.asarray(hidden[i : i + batch_size]))
        )
        for i in range(0, len(x_0), batch_size)
    ]
    return np.concatenate(parts)[:, :width]


class Errors(NamedTuple):
    """Squared differences of log-probabilities, nats²."""

    by_position: NDArray[np.float64]
    """float [L]: mean over the sequences in which the position is masked; NaN where it never is"""
    latents: tuple[float, float, float]
    """mean over masked latents, and its 95% interval over sequences"""
    observations: tuple[float, float, float]
    """the same of masked observations"""


def errors(
    log_p: NDArray[np.floating], log_q: NDArray[np.floating], is_masked: NDArray[np.bool_], num_latents: int
) -> Errors:
    """E |log p_theta(x_0^i | x_0[M]) - log q(x_0^i | x_0[M])|² for each position.

    The paper writes a norm and does not say over what. Here it is the true token's: the exact q gives others
    probability 0, of which no network's logarithm is near.

    Args:
      log_p: of the model, float [num, L], from `log_probs`.
      log_q: of the exact conditionals, or of a model that stands for them.
      is_masked: bool [num, L].
      num_latents: N.
    """
    squared = np.where(is_masked, np.square(log_p.astype(np.float64) - log_q), 0)
    counts = is_masked.sum(axis=0)
    by_position = np.where(counts > 0, squared.sum(axis=0) / np.maximum(counts, 1), np.nan)

    def summary(part: slice) -> tuple[float, float, float]:
        masked = is_masked[:, part].sum(axis=1)
        means = squared[:, part].sum(axis=1)[masked > 0] / masked[masked > 0]
        return float(means.mean()), *mean_interval(means)

    return Errors(by_position, summary(slice(0, num_latents)), summary(slice(num_latents, None)))
