"""Predicates of a few latents, and observations that are defined by them. NumPy in, NumPy out.

Latents have the values 0..m-1 (the paper counts from 1), observations 0 and 1. A predicate may be noisy: its table
holds P(O = 1 | values). Source: Kim et al. 2025, Example 3.2 and appendix B.
"""

import dataclasses
import itertools
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError

Values = NDArray[np.integer]


@dataclasses.dataclass(frozen=True)
class Predicate:
    """A bit that depends on k latents. Equal by value, and hashable.

    Attributes:
      name: the name in messages and plots.
      k: the number of latents, at least 2.
      num_values: m, the number of values of a latent, at least 2.
      flat: P(O = 1 | values) for all m^k values; the last latent changes fastest.
    """

    name: str
    k: int
    num_values: int
    flat: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.k < 2:
            raise InputError(f"{self.name}: a predicate takes k latents with k at least 2, got {self.k}")
        if self.num_values < 2:
            raise InputError(f"{self.name}: latents take m values with m at least 2, got {self.num_values}")
        if len(self.flat) != self.num_values**self.k:
            raise InputError(f"{self.name}: m^k = {self.num_values**self.k} probabilities, got {len(self.flat)}")
        if not all(0 <= p <= 1 for p in self.flat) or max(self.flat) == 0:
            raise InputError(f"{self.name}: probabilities must lie in [0, 1], and not all be 0")

    @property
    def table(self) -> NDArray[np.float64]:
        """P(O = 1 | values), `[m] * k`."""
        return np.asarray(self.flat).reshape((self.num_values,) * self.k)

    @property
    def satisfied(self) -> float:
        """γ = P(O = 1) for uniform latents."""
        return float(np.mean(self.flat))

    @property
    def is_symmetric(self) -> bool:
        """Whether the predicate is invariant under permutations of its arguments."""
        table = self.table
        swaps = [np.swapaxes(table, 0, axis) for axis in range(1, self.k)]
        return all(np.allclose(table, swapped) for swapped in swaps)

    @property
    def is_balanced(self) -> bool:
        """Assumption B.11: Σ_σ g(σ with σ_i = c) depends on neither i nor c, so that 1/m is a fixed point of BP."""
        return bool(np.allclose([self._given(i) for i in range(self.k)], self.satisfied))

    def check_balanced(self, what: str) -> None:
        """Raises InputError unless Assumption B.11 holds, which `what` needs."""
        if not self.is_balanced:
            raise InputError(
                f"{what} needs assumption B.11, that no value of one argument makes {self.name} likelier than another; "
                "nae, xor, coloring and noisy_parity fulfil it"
            )

    def _given(self, i: int) -> NDArray[np.float64]:
        """P(O = 1) given each value of argument i, `[m]`."""
        return self.table.mean(axis=tuple(axis for axis in range(self.k) if axis != i))

    def transfer(self, i: int, j: int) -> NDArray[np.float64]:
        """T[c, c'] = P(σ_j = c' | σ_i = c, O = 1) for uniform latents, `[m, m]`, i ≠ j."""
        others = tuple(axis for axis in range(self.k) if axis not in (i, j))
        joint = self.table.sum(axis=others)
        joint = joint if i < j else joint.T
        return joint / joint.sum(axis=1, keepdims=True)


def _predicate(name: str, k: int, m: int, rule: NDArray[np.float64] | None) -> Predicate:
    flat = () if rule is None else tuple(rule.ravel().tolist())
    return Predicate(name, k, m, flat)


def _grid(k: int, m: int) -> NDArray[np.int64] | None:
    """All values of k latents, `[k, m, ..., m]`; None for an invalid k or m, which `Predicate` reports."""
    return np.indices((m,) * k) if k >= 2 and m >= 2 else None


def nae(k: int, m: int) -> Predicate:
    """Not all equal: 1 unless all k latents are equal."""
    grid = _grid(k, m)
    return _predicate(f"nae({k}, {m})", k, m, None if grid is None else (grid != grid[0]).any(axis=0).astype(float))


def xor(k: int) -> Predicate:
    """1 if an odd number of k bits are 1."""
    grid = _grid(k, 2)
    return _predicate(f"xor({k})", k, 2, None if grid is None else (grid.sum(axis=0) % 2).astype(float))


def coloring(m: int) -> Predicate:
    """1 if two latents, the ends of an edge, have different values. It is nae(2, m)."""
    return dataclasses.replace(nae(2, m), name=f"coloring({m})")


def noisy_parity(k: int, noise: float) -> Predicate:
    """The parity of k bits, flipped with probability `noise`. Source: Kim et al. 2025, appendix B.1."""
    if not 0 <= noise <= 0.5:
        raise InputError(f"noise={noise}: the probability of a flip lies from 0 to 1/2")
    return dataclasses.replace(
        xor(k), name=f"noisy_parity({k}, {noise})", flat=tuple(p + noise - 2 * p * noise for p in xor(k).flat)
    )


def all_tuples(num_latents: int, k: int) -> NDArray[np.int32]:
    """All ordered k-tuples of distinct latents, int32 `[N! / (N - k)!, k]`, as in Example 3.2."""
    num = num_tuples(num_latents, k)
    every = itertools.chain.from_iterable(itertools.permutations(range(num_latents), k))
    return np.fromiter(every, np.int32, num * k).reshape(num, k)


def num_tuples(num_latents: int, k: int) -> int:
    """N! / (N - k)!; raises InputError unless 1 ≤ k ≤ N."""
    if not 1 <= k <= num_latents:
        raise InputError(f"k={k} distinct latents cannot be drawn from N={num_latents}: give at least as many")
    return math.perm(num_latents, k)


def random_tuples(rng: np.random.Generator, num: int, num_latents: int, k: int) -> NDArray[np.int32]:
    """Draws different ordered k-tuples of distinct latents, uniformly.

    Args:
      rng: the random generator.
      num: the number of tuples.
      num_latents: N.
      k: the length of a tuple.

    Returns:
      int32 `[num, k]`.

    Raises:
      InputError: k > N, or there are fewer tuples than `num`.
    """
    total = num_tuples(num_latents, k)
    if not 0 <= num <= total:
        raise InputError(
            f"{num} observations of k={k} out of N={num_latents} latents: give at most {total}, all tuples"
        )
    if 2 * num > total:
        return rng.permutation(all_tuples(num_latents, k))[:num]
    found = np.zeros((0, k), np.int32)
    while len(found) < num:  # more than half are left, so that few are drawn twice
        wanted = 2 * (num - len(found)) + 8
        if k * k > num_latents:
            drawn = np.argsort(rng.random((wanted, num_latents)), axis=1)[:, :k].astype(np.int32)
        else:  # most draws are of distinct latents
            drawn = rng.integers(num_latents, size=(wanted, k), dtype=np.int32)
            drawn = drawn[(np.diff(np.sort(drawn, axis=1), axis=1) > 0).all(axis=1)]
        found = np.concatenate([found, drawn])
        found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
    return found[:num]


class Observations(Protocol):
    """The P functions of Definition 3.1 for observations that are bits."""

    @property
    def num_observations(self) -> int:
        """P."""
        ...

    def probabilities(self, latents: Values) -> NDArray[np.floating]:
        """P(O_j = 1 | latents), `[..., P]`, for latents `[..., N]`."""
        ...

    def check(self, num_latents: int, num_values: int) -> None:
        """Raises InputError unless the observations are of N latents with m values."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class SparseObservations:
    """One predicate of P tuples of latents (Example 3.2).

    Attributes:
      predicate: a predicate of k latents.
      tuples: int32 `[P, k]`.
    """

    predicate: Predicate
    tuples: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.tuples.ndim != 2 or self.tuples.shape[1] != self.predicate.k:
            raise InputError(f"tuples for {self.predicate.name} are [P, {self.predicate.k}], got {self.tuples.shape}")
        if (np.diff(np.sort(self.tuples, axis=1), axis=1) == 0).any():
            raise InputError("a tuple names one latent twice: give distinct ones")

    @property
    def num_observations(self) -> int:
        """P."""
        return len(self.tuples)

    def probabilities(self, latents: Values) -> NDArray[np.floating]:
        """P(O_j = 1 | latents), float32 `[..., P]`, for latents `[..., N]`."""
        code = np.zeros((*latents.shape[:-1], len(self.tuples)), np.int32)
        for column in self.tuples.T:
            code = code * self.predicate.num_values + latents[..., column]
        return np.asarray(self.predicate.flat, np.float32)[code]

    def check(self, num_latents: int, num_values: int) -> None:
        """Raises InputError unless the observations are of N latents with m values."""
        if num_values != self.predicate.num_values:
            raise InputError(f"{self.predicate.name} is of m={self.predicate.num_values} values, not {num_values}")
        if len(self.tuples) and not 0 <= self.tuples.min() <= self.tuples.max() < num_latents:
            ends = f"{self.tuples.min()} to {self.tuples.max()}"
            raise InputError(f"tuples name latents {ends}: give 0 to {num_latents - 1}")


@dataclasses.dataclass(frozen=True, eq=False)
class SlabObservations:
    """Random slabs, the symmetric binary perceptron: O_j = 1 if |<z_j, 2x - 1>| ≤ β √N, for bits x.

    Source: Kim et al. 2025, appendix B.4, where P = γ N².

    Attributes:
      directions: z, float `[P, N]`; `random_slabs` draws normal ones.
      beta: β, the half-width of a slab in units of √N.
    """

    directions: NDArray[np.floating]
    beta: float

    @property
    def num_observations(self) -> int:
        """P."""
        return len(self.directions)

    def probabilities(self, latents: Values) -> NDArray[np.floating]:
        """P(O_j = 1 | latents), float32 `[..., P]`, 0 or 1, for bits `[..., N]`."""
        heights = (2 * latents - 1) @ self.directions.T
        return (np.abs(heights) <= self.beta * math.sqrt(latents.shape[-1])).astype(np.float32)

    def check(self, num_latents: int, num_values: int) -> None:
        """Raises InputError unless the observations are of N latents with m = 2 values."""
        if (num_latents, num_values) != (self.directions.shape[1], 2):
            raise InputError(f"the slabs are of {self.directions.shape[1]} bits, not {num_latents} of m={num_values}")


def random_slabs(rng: np.random.Generator, num: int, num_latents: int, beta: float) -> SlabObservations:
    """Draws P slabs of N bits with normal directions; raises InputError unless P, N and β are positive."""
    if num < 1 or num_latents < 1 or not beta > 0:
        raise InputError(f"{num} slabs of {num_latents} bits, β={beta}: give all of them above 0")
    return SlabObservations(rng.standard_normal((num, num_latents)), beta)
