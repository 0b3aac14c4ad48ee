"""What it costs to reveal several tokens in a step, and the schedule that costs least.

A sampler reveals positions in uniformly random order, a_t of them in step t, each drawn from its own conditional. Let
h(j) be the entropy of a random position given j random others, averaged over both: the information curve. It never
rises. The law of the samples then differs from p, on average over orders, by

    E KL(p || samples) = Σ_t Σ_{r < a_t} h(n_t) - h(n_t + r),    n_t = a_1 + ... + a_(t-1)

nats: a step takes all its tokens as if each were as hard as its first. So the curve alone says what a schedule costs,
and the best one follows by dynamic programming. The law of samples whose order nobody knows is a mixture over orders,
and no further from p. Source: Chen, Cong, Li 2025 (arXiv:2511.04647).

Proof of the formula: in an order with steps B_1, B_2, ... the divergence is Σ_t Σ_(i in B_t) H(X_i | before) -
H(B_t | before). By the chain rule H(B_t | before) is, on average over orders, the sum of h(n_t + r) over r.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.checks import check_mask_id, check_tokens, known_values
from mdm_jax.errors import InputError, shown
from mdm_jax.logits import float_logits
from mdm_jax.selection import Planned
from mdm_jax.typing import Array, Denoiser, Params

Values = NDArray[np.float64]
ROWS = 1 << 14
"""The most rows of a network call."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counts(Planned):
    """Reveals given numbers of positions, step by step, and all that is left in the last step. A selector.

    Attributes:
      counts: int [T], a_1 to a_T, each at least 1.
    """

    counts: Array

    def __post_init__(self) -> None:
        counts = self.counts
        fits = not isinstance(counts, list | tuple | int | float)  # a tree without arrays passes
        if hasattr(counts, "dtype"):
            fits = counts.ndim == 1 and counts.size > 0 and jnp.issubdtype(counts.dtype, jnp.integer)
        if not fits:
            raise InputError(f"counts are an array int [T], got {shown(counts)}")
        values = known_values(counts) if isinstance(counts, np.ndarray | jax.Array) else None
        if values is not None and values.min() < 1:
            raise InputError(f"counts are positive, got {shown(values.tolist())}")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.counts)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """How many positions step j reveals."""
        del key, n_0
        return jnp.minimum(jnp.asarray(self.counts)[jnp.minimum(j, len(self.counts)) - 1], left)


def entropies(
    denoiser: Denoiser, params: Params, sequences: NDArray[np.integer], *, mask_id: int, seed: int = 0
) -> Values:
    """An unbiased estimate of the information curve from each sequence of the model's own law.

    Each sequence has a random order of its own. h(j) is estimated by the mean entropy of the positions that are masked
    when the first j are shown.

    Args:
      denoiser: the network; it should be exact for the sequences' law.
      params: its parameters.
      sequences: int [N, L], samples of the law.
      mask_id: the mask token.
      seed: of the orders.

    Returns:
      float64 [N, L], nats; the mean over sequences is the curve h(0) to h(L - 1).
    """
    length = sequences.shape[1]

    def read(log_p: Array, tokens: Array, is_masked: Array, is_next: Array) -> Array:
        del tokens, is_next
        entropy = jax.scipy.special.entr(jnp.exp(log_p)).sum(axis=-1)
        return jnp.where(is_masked, entropy, 0).sum(axis=1) / is_masked.sum(axis=1)

    return _by_state(denoiser, params, sequences, np.ones(length, int), mask_id, seed, read)


def nll(
    denoiser: Denoiser,
    params: Params,
    sequences: NDArray[np.integer],
    counts: Sequence[int],
    *,
    mask_id: int,
    seed: int = 0,
) -> Values:
    """-log of the probability of each sequence, given a random order with these numbers of tokens a step.

    Take its mean over samples of p, and subtract the mean for one token a step: this estimates the divergence. The
    orders are those of `entropies` with this seed.

    Args:
      denoiser: the network.
      params: its parameters.
      sequences: int [N, L].
      counts: a_1 to a_T, positive, with sum L.
      mask_id: the mask token.
      seed: of the orders.

    Returns:
      float64 [N], nats.
    """

    def read(log_p: Array, tokens: Array, is_masked: Array, is_next: Array) -> Array:
        del is_masked
        found = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
        return -jnp.where(is_next, found, 0).sum(axis=1)

    _check_counts(counts, sequences.shape[1])
    return _by_state(denoiser, params, sequences, np.asarray(counts), mask_id, seed, read).sum(axis=1)


def divergence(curve: Values, counts: Sequence[int]) -> Values:
    """The divergence of a schedule, by the formula.

    Args:
      curve: float [..., L], as from `entropies`.
      counts: a_1 to a_T, positive, with sum L.

    Returns:
      float64 [...], nats.
    """
    curve = np.asarray(curve, np.float64)
    _check_counts(counts, curve.shape[-1])
    first = np.repeat(np.cumsum(counts) - counts, counts)  # n_t, for each position of step t
    return (curve[..., first] - curve).sum(axis=-1)


def best_counts(curve: Values, num_steps: int) -> NDArray[np.int64]:
    """The schedule of T steps with the least divergence, by dynamic programming in O(T L²).

    Args:
      curve: float [L], h.
      num_steps: T, from 1 to L.

    Returns:
      int [T], a_1 to a_T, each at least 1.

    Example:
      curve = np.array([1.0, 0.5, 0.5, 0.5])  # once one is known, the others tell nothing of each other
      assert best_counts(curve, 2).tolist() == [1, 3] and divergence(curve, [1, 3]) == 0
    """
    curve = np.asarray(curve, np.float64)
    length = len(curve)
    if not np.isfinite(curve).all():
        raise InputError("the curve holds entropies that are not finite")
    if not 1 <= num_steps <= length:
        raise InputError(f"num_steps={num_steps}: {length} positions are revealed in 1 to {length} steps")
    total = np.concatenate([[0], np.cumsum(curve)])
    begin, end = np.arange(length)[:, None], np.arange(length + 1)[None]
    step = np.where(end > begin, (end - begin) * curve[:, None] - (total[end] - total[begin]), np.inf)
    cost, previous = np.full(length + 1, np.inf), []
    cost[0] = 0
    for _ in range(num_steps):
        sums = cost[:length, None] + step
        previous.append(sums.argmin(axis=0))
        cost = sums.min(axis=0)
    ends = [length]
    for last in reversed(previous):
        ends.append(int(last[ends[-1]]))
    return np.diff(ends[::-1])


def _check_counts(counts: Sequence[int], length: int) -> None:
    values = np.asarray(counts)
    if not np.issubdtype(values.dtype, np.integer) or values.min(initial=1) < 1 or values.sum() != length:
        raise InputError(f"counts are positive integers and sum to the {length} positions, got {shown(list(counts))}")


def _by_state(
    denoiser: Denoiser,
    params: Params,
    sequences: NDArray[np.integer],
    counts: NDArray[np.integer],
    mask_id: int,
    seed: int,
    read: Callable[[Array, Array, Array, Array], Array],
) -> Values:
    """What `read` makes of the state before each step, float64 [N, T]."""
    sequences = np.asarray(check_tokens(sequences, "sequences", denoiser))
    check_mask_id(mask_id, denoiser)
    if (sequences == mask_id).any():
        raise InputError(f"the sequences hold the mask, mask_id={mask_id}: give whole ones")
    num, length = sequences.shape
    ends = np.cumsum(counts)[None, :, None]
    begins = ends - counts[None, :, None]
    ranks = np.random.default_rng([seed, 0, 1]).permuted(np.tile(np.arange(length), (num, 1)), axis=1)
    size = min(max(ROWS // len(counts), 1), num)

    @jax.jit
    def values(params: Params, tokens: Array, rank: Array) -> Array:
        is_masked = (rank[:, None] >= begins).reshape(-1, length)
        is_next = is_masked & (rank[:, None] < ends).reshape(-1, length)
        tokens = jnp.repeat(tokens, len(counts), axis=0)
        logits = float_logits(denoiser(params, jnp.where(is_masked, mask_id, tokens)), mask_id)
        log_p = jax.nn.log_softmax(logits, axis=-1)
        found: Array = read(log_p, tokens, is_masked, is_next)
        return found.reshape(-1, len(counts))

    parts = []
    for begin in range(0, num, size):
        rows = np.arange(begin, begin + size) % num  # the last chunk is filled up, so that it has the same shape
        parts.append(np.asarray(values(params, jnp.asarray(sequences[rows], jnp.int32), jnp.asarray(ranks[rows]))))
    return np.concatenate(parts)[:num].astype(np.float64)
