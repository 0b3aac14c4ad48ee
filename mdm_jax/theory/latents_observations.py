"""Latents-and-observations distributions, and their exact predictor.

Source: Kim et al. 2025, Definition 3.1. Values count from 0 here: latents 0..m-1, observations 0 and 1.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import Observations
from mdm_jax.typing import Array

IMPOSSIBLE = -1e9
"""The stand-in for log 0. It is finite, so its sums and products are numbers."""
MAX_ENTRIES = 1 << 29
"""The largest number of entries in the table of states and tokens: 2 GiB in float32."""
_CHUNK = 1 << 24  # entries of a chunk


@dataclasses.dataclass(frozen=True, eq=False)
class LatentsObservations:
    """N independent latents, P observations of them, and their positions in the sequence, L = N + P.

    Deviation: observations are bits here; the definition lets them take m + 1 values.

    Attributes:
      num_latents: N.
      prior: the distribution of a latent, `[m]`, with sum 1.
      observations: the functions O_1..O_P.
      order: π, int `[L]`: latent i is at position π(i), observation j at π(N + j); None for latents first.
    """

    num_latents: int
    prior: tuple[float, ...]
    observations: Observations
    order: NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        if self.num_latents < 1:
            raise InputError(f"num_latents={self.num_latents}: give at least 1")
        if len(self.prior) < 2 or min(self.prior) < 0 or not math.isclose(sum(self.prior), 1, abs_tol=1e-6):
            raise InputError(f"the prior is of m values, m at least 2, and sums to 1; got {self.prior}")
        if self.order is not None and sorted(np.asarray(self.order).tolist()) != list(range(self.length)):
            raise InputError(f"the order is a permutation of 0 to {self.length - 1}, got {self.order}")
        self.observations.check(self.num_latents, self.num_values)

    @property
    def length(self) -> int:
        """L = N + P."""
        return self.num_latents + self.observations.num_observations

    @property
    def num_values(self) -> int:
        """m, the number of values of a latent."""
        return len(self.prior)

    @property
    def positions(self) -> NDArray[np.integer]:
        """π, int `[L]`: the positions of the latents, then those of the observations."""
        return np.arange(self.length) if self.order is None else np.asarray(self.order)

    def sample(self, rng: np.random.Generator, num: int) -> NDArray[np.int32]:
        """Draws sequences, int32 `[num, L]`."""
        prior = np.asarray(self.prior) / sum(self.prior)
        latents = rng.choice(self.num_values, size=(num, self.num_latents), p=prior)
        chances = self.observations.probabilities(latents)
        tokens = np.empty((num, self.length), np.int32)
        tokens[:, self.positions] = np.concatenate([latents, rng.random(chances.shape) < chances], axis=1)
        return tokens

    def consistent(self, tokens: NDArray[np.integer]) -> NDArray[np.floating]:
        """The probability of each observation given the latents of its sequence, `[..., P]`: 0 or 1 without noise."""
        ordered = tokens[..., self.positions]
        latents, observed = ordered[..., : self.num_latents], ordered[..., self.num_latents :]
        chances = self.observations.probabilities(latents)
        return np.where(observed == 1, chances, np.where(observed == 0, 1 - chances, 0))


class States(NamedTuple):
    """All S = m^N values of the latents, which are the parameters of a `BayesDenoiser`."""

    log_prior: Array
    """float32 [S]"""
    latents: Array
    """int8 [S, N]; int32 if m exceeds 127"""
    chances: Array
    """float32 [S, P]: P(O_j = 1 | latents)"""
    positions: Array
    """int32 [L]: π"""


def states(distribution: LatentsObservations) -> States:
    """Enumerates all states of the latents; raises InputError if the table of m^N states would exceed 2 GiB."""
    m, num = distribution.num_values, distribution.num_latents
    if m**num * distribution.length > MAX_ENTRIES:
        raise InputError(
            f"{m}^{num} states of N={num} latents, times N + P = {distribution.length}, are too much to enumerate: "
            f"give fewer latents, for at most {MAX_ENTRIES:.3g}"
        )
    latents = np.empty((m**num, num), np.int8 if m <= 127 else np.int32)
    chances = np.empty((m**num, distribution.observations.num_observations), np.float32)
    log_prior = np.empty(m**num, np.float32)
    with np.errstate(divide="ignore"):
        log_values = np.maximum(np.log(np.asarray(distribution.prior)), IMPOSSIBLE)
    size = max(_CHUNK // distribution.length, 1)
    for begin in range(0, m**num, size):
        rows = slice(begin, begin + size)
        latents[rows] = np.arange(begin, min(begin + size, m**num))[:, None] // m ** np.arange(num - 1, -1, -1) % m
        chances[rows] = distribution.observations.probabilities(latents[rows].astype(np.int32))
        log_prior[rows] = log_values[latents[rows]].sum(axis=1)
    return States(
        jnp.asarray(log_prior),
        jnp.asarray(latents),
        jnp.asarray(chances),
        jnp.asarray(distribution.positions, jnp.int32),
    )


@dataclasses.dataclass(frozen=True)
class BayesDenoiser:
    """The exact p(x^i | x[M]) of a latents-and-observations distribution, by enumeration. It is a `Denoiser`.

        p(x^i = v | x[M]) = Σ_z p(x^i = v | z) w(z),   w(z) ∝ p(z) Π_{j not in M} p(x^j | z)

    If no latents explain the revealed tokens, all values of a masked position are equally likely. Sampling can get
    there when it reveals several dependent tokens in one step. A revealed token always has probability 1.

    Attributes:
      num_values: m; V = max(m, 2).
      mask_id: the mask token, at least V.
    """

    num_values: int
    mask_id: int

    def __post_init__(self) -> None:
        if self.mask_id < self.vocab_size:
            raise InputError(f"mask_id={self.mask_id} is a value of a token: give at least {self.vocab_size}")

    @property
    def vocab_size(self) -> int:
        """V."""
        return max(self.num_values, 2)

    def __call__(self, params: States, tokens: Array) -> Array:
        """Log-probabilities float32 [B, L, V], -inf for impossible values.

        Args:
          params: the states, from `states`.
          tokens: int32 [B, L].

        Raises:
          InputError: the states belong to sequences of another length.
        """
        if tokens.shape[1] != params.positions.shape[0]:
            raise InputError(f"tokens are [B, {params.positions.shape[0]}] for these states, got {tokens.shape}")
        (num_rows, length), (num_states, num_latents), V = tokens.shape, params.latents.shape, self.vocab_size
        shown = jax.nn.one_hot(tokens[:, params.positions], V)  # 0 where masked
        evidence = shown.reshape(num_rows, length * V)
        size = min(num_states, max(_CHUNK // max(num_rows, length * V), 1))
        padding = -num_states % size
        parts = (
            jnp.pad(params.log_prior, (0, padding), constant_values=-jnp.inf).reshape(-1, size),
            jnp.pad(params.latents, ((0, padding), (0, 0))).reshape(-1, size, num_latents),
            jnp.pad(params.chances, ((0, padding), (0, 0))).reshape(-1, size, length - num_latents),
        )

        def add(carry: tuple[Array, Array], part: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
            best, sums = carry
            log_prior, latents, chances = part
            bits = jnp.pad(jnp.stack([1 - chances, chances], axis=-1), ((0, 0), (0, 0), (0, V - 2)))
            given = jnp.concatenate([jax.nn.one_hot(latents, V), bits], axis=1).reshape(size, length * V)
            log_given = jnp.where(given > 0, jnp.log(jnp.where(given > 0, given, 1.0)), IMPOSSIBLE)
            scores = log_prior[None] + _product(evidence, log_given.T)
            top = jnp.maximum(best, scores.max(axis=1))
            sums = jnp.exp(best - top)[:, None] * sums + _product(jnp.exp(scores - top[:, None]), given)
            return (top, sums), None

        start = (jnp.full(num_rows, -jnp.inf), jnp.zeros((num_rows, length * V)))
        (best, sums), _ = jax.lax.scan(add, start, parts)
        num_choices = jnp.where(jnp.arange(length) < num_latents, self.num_values, 2)
        uniform = (jnp.arange(V)[None] < num_choices[:, None]).astype(jnp.float32)
        is_possible = (best > 0.5 * IMPOSSIBLE)[:, None, None]
        weights = jnp.where(is_possible, sums.reshape(shown.shape), uniform[None])
        weights = jnp.where(shown.any(axis=-1, keepdims=True), shown, weights)
        log_p = jnp.log(weights) - jnp.log(weights.sum(axis=-1, keepdims=True))
        return jnp.zeros_like(log_p).at[:, params.positions].set(log_p)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
