"""The planted constraint satisfaction problem: clauses that a hidden assignment satisfies. NumPy in, NumPy out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import Predicate, SparseObservations, num_tuples, random_tuples


class PlantedCSP(NamedTuple):
    """An instance."""

    assignment: NDArray[np.int32]
    """σ, int32 [N]: the planted assignment"""
    clauses: NDArray[np.int32]
    """int32 [P, k]: the variables of each clause. The predicate is 1 for them"""


def planted_csp(
    rng: np.random.Generator,
    predicate: Predicate,
    num_variables: int,
    degree: float,
    *,
    tuples: NDArray[np.int32] | None = None,
) -> PlantedCSP:
    """Draws σ uniformly, and selects tuples of distinct variables at random. Tuples with predicate 1 become clauses.

    Source: Kim et al. 2025, Definition B.9. There a tuple is selected with probability φ / N^(k-1). Here the degree
    determines this probability.

    Args:
      rng: the random generator.
      predicate: a predicate of k variables. A noisy one is drawn independently for each tuple.
      num_variables: N.
      degree: d = k P / N, the mean number of clauses per variable.
      tuples: int32 `[num, k]`, the tuples to select from; None for all ordered tuples.

    Raises:
      InputError: k > N, or the degree is negative or larger than all tuples allow.
    """
    k = predicate.k
    total = num_tuples(num_variables, k) if tuples is None else len(tuples)
    expected = degree * num_variables / (k * predicate.satisfied)
    if not 0 <= expected <= total:
        most = k * predicate.satisfied * total / num_variables
        raise InputError(f"degree={degree}: {total} tuples of {num_variables} variables give from 0 to {most:.4g}")
    is_too_large = total > 1 << 62  # for NumPy's binomial; its Poisson limit has the same law
    num = int(rng.poisson(expected) if is_too_large else rng.binomial(total, expected / max(total, 1)))
    if tuples is None:
        drawn = random_tuples(rng, num, num_variables, k)
    else:
        drawn = tuples[rng.choice(total, num, replace=False)]
    assignment = rng.integers(predicate.num_values, size=num_variables, dtype=np.int32)
    is_one = rng.random(num) < SparseObservations(predicate, drawn).probabilities(assignment)
    return PlantedCSP(assignment, drawn[is_one])
