"""The planted constraint satisfaction problem: clauses that a hidden assignment fulfils. NumPy in, NumPy out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import Predicate, SparseObservations, num_tuples, random_tuples


class PlantedCSP(NamedTuple):
    """An instance."""

    assignment: NDArray[np.int32]
    """σ, int32 [N]: what was planted"""
    clauses: NDArray[np.int32]
    """int32 [P, k]: the variables of each clause, for which the predicate came out as 1"""


def planted_csp(
    rng: np.random.Generator,
    predicate: Predicate,
    num_variables: int,
    degree: float,
    *,
    tuples: NDArray[np.int32] | None = None,
) -> PlantedCSP:
    """Draws σ uniformly, then each tuple of distinct variables with a chance, if the predicate is 1 for it.

    Source: Kim et al. 2025, Definition B.9. There the chance is φ / N^(k-1); here it is given by what it comes to.

    Args:
      rng: the generator.
      predicate: of k variables; a noisy one is drawn anew for each tuple.
      num_variables: N.
      degree: d = k P / N, clauses per variable on average.
      tuples: int32 `[num, k]`, which tuples there are; None for all ordered ones.

    Raises:
      InputError: k > N, or the degree is negative or more than all tuples give.
    """
    k = predicate.k
    total = num_tuples(num_variables, k) if tuples is None else len(tuples)
    expected = degree * num_variables / (k * predicate.satisfied)
    if not 0 <= expected <= total:
        most = k * predicate.satisfied * total / num_variables
        raise InputError(f"degree={degree}: {total} tuples of {num_variables} variables give from 0 to {most:.4g}")
    is_vast = total > 1 << 62  # more than NumPy counts; its limit has the same law
    num = int(rng.poisson(expected) if is_vast else rng.binomial(total, expected / max(total, 1)))
    if tuples is None:
        drawn = random_tuples(rng, num, num_variables, k)
    else:
        drawn = tuples[rng.choice(total, num, replace=False)]
    assignment = rng.integers(predicate.num_values, size=num_variables, dtype=np.int32)
    is_one = rng.random(num) < SparseObservations(predicate, drawn).probabilities(assignment)
    return PlantedCSP(assignment, drawn[is_one])
