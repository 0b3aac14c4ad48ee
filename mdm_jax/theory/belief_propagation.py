"""Belief propagation on factor graphs of one predicate, jitted and batched over instances.

Source: Kim et al. 2025, Definition B.10; messages are damped, and kept from 0 by `FLOOR`.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import Predicate
from mdm_jax.typing import Array

FLOOR = 1e-12
"""The least that a clause's message gives any value."""


class FactorGraph(NamedTuple):
    """Which variables each clause ties together. Arrays may have a leading axis [B], one instance each."""

    clauses: Array
    """int32 [k, P]: the variable at each place of each clause"""
    answers: Array
    """int32 [P]: what was observed of it, 0 or 1, or -1 if nothing was"""
    known: Array
    """int32 [N]: the value of each variable that is known, -1 of the others"""


class Beliefs(NamedTuple):
    """Where belief propagation ended. Arrays have a leading axis [B] if the graph has."""

    marginals: Array
    """float32 [N, m]"""
    messages: Array
    """float32 [m, k, P], from each place's variable to its clause"""
    sweeps: Array
    """int32: how many were made"""
    change: Array
    """float32: the largest change of a marginal in the last of them, as if not damped"""


def factor_graph(
    clauses: NDArray[np.integer],
    num_variables: int,
    *,
    answers: NDArray[np.integer] | None = None,
    known: NDArray[np.integer] | None = None,
) -> FactorGraph:
    """The graph of some clauses.

    Args:
      clauses: int [P, k].
      num_variables: N.
      answers: int [P], 0, 1, or -1 for a clause of which nothing was observed; None for all 1.
      known: int [N], the value of a variable, or -1; None where none is known.

    Raises:
      InputError: a clause names a variable twice or one that is not there, or `answers` or `known` do not fit.
    """
    clauses = np.asarray(clauses, np.int32)
    if clauses.ndim != 2:
        raise InputError(f"clauses are [P, k], got shape {clauses.shape}")
    if len(clauses) and not 0 <= clauses.min() <= clauses.max() < num_variables:
        raise InputError(f"clauses name variables {clauses.min()} to {clauses.max()}: give 0 to {num_variables - 1}")
    if (np.diff(np.sort(clauses, axis=1), axis=1) == 0).any():
        raise InputError("a clause names one variable twice: give distinct ones")
    seen = np.ones(len(clauses), np.int32) if answers is None else np.asarray(answers, np.int32)
    if seen.shape != (len(clauses),) or not np.isin(seen, (-1, 0, 1)).all():
        raise InputError(f"answers are 0, 1 or -1, one for each of {len(clauses)} clauses; got shape {seen.shape}")
    given = np.full(num_variables, -1, np.int32) if known is None else np.asarray(known, np.int32)
    if given.shape != (num_variables,):
        raise InputError(f"known has a value or -1 for each of {num_variables} variables; got shape {given.shape}")
    return FactorGraph(jnp.asarray(clauses.T), jnp.asarray(seen), jnp.asarray(given))


def stack(graphs: Sequence[FactorGraph]) -> FactorGraph:
    """Several graphs of as many variables as one batch [B]; smaller ones get clauses of which nothing is seen."""
    most = max(graph.clauses.shape[1] for graph in graphs)
    clauses = [jnp.pad(graph.clauses, ((0, 0), (0, most - graph.clauses.shape[1]))) for graph in graphs]
    answers = [jnp.pad(graph.answers, (0, most - len(graph.answers)), constant_values=-1) for graph in graphs]
    return FactorGraph(jnp.stack(clauses), jnp.stack(answers), jnp.stack([graph.known for graph in graphs]))


def random_messages(key: Array, predicate: Predicate, graph: FactorGraph) -> Array:
    """Messages drawn uniformly from the simplex, float32 [..., m, k, P]."""
    shape = (*graph.clauses.shape[:-2], predicate.num_values, *graph.clauses.shape[-2:])
    drawn = jax.random.exponential(key, shape)
    return drawn / drawn.sum(axis=-3, keepdims=True)


def planted_messages(predicate: Predicate, graph: FactorGraph, assignment: Array) -> Array:
    """Messages that are sure of an assignment int [..., N], float32 [..., m, k, P]."""
    *lead, k, num = graph.clauses.shape
    flat = graph.clauses.reshape(*lead, k * num)
    values = jnp.take_along_axis(jnp.asarray(assignment, jnp.int32), flat, axis=-1).reshape(graph.clauses.shape)
    return jnp.moveaxis(jax.nn.one_hot(values, predicate.num_values), -1, -3)


def clause_messages(predicate: Predicate, messages: Array, answers: Array) -> Array:
    r"""What each clause tells each of its variables of its value, float32 [m, k, P], up to a factor for all values.

        ν^{S→i}(c) ∝ Σ_{σ on S\i} P(O_S | σ with σ_i = c) Π_{j in S\i} μ^{j→S}(σ_j)

    P(O = 0 | ·) = 1 - P(O = 1 | ·), and the products sum to 1, so that the answer 0 is told by 1 - ν. The precision is
    an absolute one, 6e-8.

    Args:
      predicate: of k variables with m values.
      messages: μ, float32 [m, k, P], summing to 1 over m.
      answers: int32 [P].
    """
    k, m = predicate.k, predicate.num_values
    # ν, 1 - ν or 1 for the answers 1, 0 and -1.
    constant = (answers != 1).astype(jnp.float32)
    factor = (answers == 1).astype(jnp.float32) - (answers == 0).astype(jnp.float32)
    table = predicate.table
    if np.count_nonzero(1 - table) < np.count_nonzero(table):  # fewer products tell the same of it
        table, constant, factor = 1 - table, constant + factor, -factor
    told = []
    for i in range(k):
        others = [j for j in range(k) if j != i]
        sums = [jnp.zeros(answers.shape)] * m
        for values in itertools.product(range(m), repeat=k - 1):  # unrolled, XLA makes one pass over the clauses of it
            product = functools.reduce(jnp.multiply, (messages[v, j] for v, j in zip(values, others, strict=True)))
            for c in range(m):
                if weight := table[(*values[:i], c, *values[i:])]:
                    sums[c] = sums[c] + weight * product
        told.append(jnp.stack([jnp.maximum(constant + factor * total, FLOOR) for total in sums]))
    return jnp.stack(told, axis=1)


def sweep(predicate: Predicate, graph: FactorGraph, messages: Array) -> tuple[Array, Array]:
    """One parallel update of all messages: the new ones, float32 [m, k, P], and the marginals, [m, N].

        μ^{i→S}(c) ∝ Π_{T∋i, T≠S} ν^{T→i}(c) ∝ marginal_i(c) / ν^{S→i}(c)

    The barriers keep XLA from computing logarithms and quotients one by one inside of the scatter and the gather, at
    four times the price on a CPU.

    Args:
      predicate: of every clause.
      graph: one instance.
      messages: from variables to clauses, float32 [m, k, P].
    """
    hold, places = jax.lax.optimization_barrier, graph.clauses.reshape(-1)
    told = hold(clause_messages(predicate, messages, graph.answers).reshape(len(messages), -1))
    fields = jax.ops.segment_sum(hold(jnp.log(told).T), places, len(graph.known))
    is_known = jax.nn.one_hot(graph.known, len(messages), dtype=bool)  # all False where it is not
    is_open = is_known | (graph.known < 0)[:, None]
    marginals = hold(jax.nn.softmax(jnp.where(is_open, fields, -jnp.inf), axis=-1).T)
    cavity = hold(marginals.at[:, places].get(mode="promise_in_bounds")) / told
    return (cavity / functools.reduce(jnp.add, cavity)[None]).reshape(messages.shape), marginals


def propagate(
    predicate: Predicate,
    graph: FactorGraph,
    messages: Array,
    *,
    damping: float = 0.5,
    max_sweeps: int = 1000,
    tolerance: float = 1e-4,
) -> Beliefs:
    """Sweeps until no marginal of an instance changes by `tolerance`; instances of a batch end each for itself.

    The mode in which all variables tilt to one value has the multiplier (k-1) d λ, far below -1 for most predicates, so
    that plain sweeps from a random start swing for ever: damping must exceed 1 - 2 / (1 + (k-1) d |λ|).

    Args:
      predicate: of every clause.
      graph: the instance, or a batch of them.
      messages: where to start, float32 [..., m, k, P]: `random_messages`, `planted_messages`.
      damping: the part of the old message that stays, in [0, 1).
      max_sweeps: when to end at the latest.
      tolerance: of probabilities.

    Returns:
      Beliefs.

    Raises:
      InputError: an option is out of its range, or the graph is of clauses of another length.
    """
    if not 0 <= damping < 1 or max_sweeps < 1:
        raise InputError(f"damping={damping}, max_sweeps={max_sweeps}: give one in [0, 1) and at least one sweep")
    if graph.clauses.shape[-2] != predicate.k:
        raise InputError(f"clauses of {graph.clauses.shape[-2]} variables, and {predicate.name} takes {predicate.k}")
    *lead, k, num = graph.clauses.shape
    if messages.shape != (*lead, predicate.num_values, k, num):
        raise InputError(f"messages are {(*lead, predicate.num_values, k, num)} here, got {messages.shape}")
    return _propagate(predicate, graph, messages, damping, max_sweeps, tolerance)


@functools.partial(jax.jit, static_argnames="predicate")
def _propagate(
    predicate: Predicate,
    graph: FactorGraph,
    messages: Array,
    damping: Array,
    max_sweeps: Array,
    tolerance: Array,
) -> Beliefs:
    def cond_fun(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, sweeps, change = carry
        return (sweeps < max_sweeps) & (change >= tolerance)

    def run(graph: FactorGraph, messages: Array) -> Beliefs:
        def body_fun(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            old, former, sweeps, _ = carry
            new, marginals = sweep(predicate, graph, old)
            change = jnp.abs(marginals - former).max(initial=0.0) / (1 - damping)
            return old + (1 - damping) * (new - old), marginals, sweeps + 1, change

        nothing = jnp.full((len(messages), len(graph.known)), 2.0)  # is no marginal, so that the first sweep changes it
        start = (messages, nothing, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
        end, marginals, sweeps, change = jax.lax.while_loop(cond_fun, body_fun, start)
        return Beliefs(marginals.T, end, sweeps, change)

    return (run if messages.ndim == 3 else jax.vmap(run))(graph, messages)


def overlap(values: NDArray[np.integer], assignment: NDArray[np.integer], num_values: int) -> float:
    """The share of variables that agree, under the renaming of values that suits best.

    The paper's Definition B.9 takes the least over permutations of the variables, which is taken for a slip.

    Args:
      values: int [N], such as `beliefs.marginals.argmax(-1)`.
      assignment: int [N].
      num_values: m.
    """
    from scipy.optimize import linear_sum_assignment

    matches = np.zeros((num_values, num_values), np.int64)
    np.add.at(matches, (np.asarray(values), np.asarray(assignment)), 1)
    rows, columns = linear_sum_assignment(matches, maximize=True)
    return float(matches[rows, columns].sum() / len(values))
