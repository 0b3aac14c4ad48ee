"""Belief propagation on factor graphs of one predicate, jitted and batched over instances.

Source: Kim et al. 2025, Definition B.10. Deviation: messages are damped, and at least `FLOOR`.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mdm_jax.checks import known_values
from mdm_jax.errors import InputError
from mdm_jax.theory.predicates import Predicate
from mdm_jax.typing import Array

FLOOR = 1e-12
"""The smallest entry of a clause's message."""


class FactorGraph(NamedTuple):
    """The variables of each clause. Arrays may have a leading axis [B] for a batch of instances."""

    clauses: Array
    """int32 [k, P]: the variable of each argument of each clause"""
    answers: Array
    """int32 [P]: the observation of each clause, 0 or 1, or -1 if it was not observed"""
    known: Array
    """int32 [N]: the value of each known variable, -1 for unknown ones"""


class Beliefs(NamedTuple):
    """The result of belief propagation. Arrays have a leading axis [B] if the graph has one."""

    marginals: Array
    """float32 [N, m]"""
    messages: Array
    """float32 [m, k, P], from variables to clauses"""
    sweeps: Array
    """int32: the number of sweeps"""
    change: Array
    """float32: the largest change of a marginal in the last sweep, divided by 1 - damping"""


def factor_graph(
    clauses: NDArray[np.integer],
    num_variables: int,
    *,
    answers: NDArray[np.integer] | None = None,
    known: NDArray[np.integer] | None = None,
) -> FactorGraph:
    """Makes the graph of clauses.

    Args:
      clauses: int [P, k].
      num_variables: N.
      answers: int [P], 0, 1, or -1 for clauses that were not observed; None for all 1.
      known: int [N], the values of known variables, -1 for unknown ones; None if all are unknown.

    Raises:
      InputError: a clause names a variable twice or one out of range, or `answers` or `known` do not fit.
    """
    clauses = np.asarray(clauses, np.int32)
    if clauses.ndim != 2:
        raise InputError(f"clauses are [P, k], got shape {clauses.shape}")
    if len(clauses) and not 0 <= clauses.min() <= clauses.max() < num_variables:
        raise InputError(f"clauses name variables {clauses.min()} to {clauses.max()}: give 0 to {num_variables - 1}")
    if (np.diff(np.sort(clauses, axis=1), axis=1) == 0).any():
        raise InputError("a clause names one variable twice: give distinct ones")
    observed = np.ones(len(clauses), np.int32) if answers is None else np.asarray(answers, np.int32)
    if observed.shape != (len(clauses),) or not np.isin(observed, (-1, 0, 1)).all():
        raise InputError(f"answers are 0, 1 or -1, one for each of {len(clauses)} clauses; got shape {observed.shape}")
    given = np.full(num_variables, -1, np.int32) if known is None else np.asarray(known, np.int32)
    if given.shape != (num_variables,):
        raise InputError(f"known has a value or -1 for each of {num_variables} variables; got shape {given.shape}")
    return FactorGraph(jnp.asarray(clauses.T), jnp.asarray(observed), jnp.asarray(given))


def stack(graphs: Sequence[FactorGraph]) -> FactorGraph:
    """Stacks graphs with the same number of variables into a batch [B], padded with clauses without observation."""
    if not graphs:
        raise InputError("there is no graph to stack: give at least one")
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
    """Messages with probability 1 for an assignment, int [..., N]: float32 [..., m, k, P]."""
    *lead, k, num = graph.clauses.shape
    flat = graph.clauses.reshape(*lead, k * num)
    values = jnp.take_along_axis(jnp.asarray(assignment, jnp.int32), flat, axis=-1).reshape(graph.clauses.shape)
    return jnp.moveaxis(jax.nn.one_hot(values, predicate.num_values), -1, -3)


def clause_messages(predicate: Predicate, messages: Array, answers: Array) -> Array:
    r"""The messages from clauses to their variables, float32 [m, k, P], up to a factor for each message.

        ν^{S→i}(c) ∝ Σ_{σ on S\i} P(O_S | σ with σ_i = c) Π_{j in S\i} μ^{j→S}(σ_j)

    P(O = 0 | ·) = 1 - P(O = 1 | ·), and the products sum to 1, so the message for the answer 0 is 1 - ν. The absolute
    precision is 6e-8.

    Args:
      predicate: a predicate of k variables with m values.
      messages: μ, float32 [m, k, P], summing to 1 over m.
      answers: int32 [P].
    """
    k, m = predicate.k, predicate.num_values
    # ν, 1 - ν or 1 for the answers 1, 0 and -1.
    constant = (answers != 1).astype(jnp.float32)
    factor = (answers == 1).astype(jnp.float32) - (answers == 0).astype(jnp.float32)
    table = predicate.table
    if np.count_nonzero(1 - table) < np.count_nonzero(table):  # the complement has fewer terms
        table, constant, factor = 1 - table, constant + factor, -factor
    messages_to = []
    for i in range(k):
        others = [j for j in range(k) if j != i]
        sums = [jnp.zeros(answers.shape)] * m
        for values in itertools.product(range(m), repeat=k - 1):  # unrolled: XLA fuses it into one pass
            product = functools.reduce(jnp.multiply, (messages[v, j] for v, j in zip(values, others, strict=True)))
            for c in range(m):
                if weight := table[(*values[:i], c, *values[i:])]:
                    sums[c] = sums[c] + weight * product
        messages_to.append(jnp.stack([jnp.maximum(constant + factor * total, FLOOR) for total in sums]))
    return jnp.stack(messages_to, axis=1)


def sweep(predicate: Predicate, graph: FactorGraph, messages: Array) -> tuple[Array, Array]:
    """Updates all messages in parallel. Returns the new messages, float32 [m, k, P], and the marginals, [m, N].

        μ^{i→S}(c) ∝ Π_{T∋i, T≠S} ν^{T→i}(c) ∝ marginal_i(c) / ν^{S→i}(c)

    The barriers keep XLA from fusing logarithms and quotients into the scatter and the gather, which takes four times
    as long on a CPU.

    Args:
      predicate: the predicate of every clause.
      graph: one instance.
      messages: the messages from variables to clauses, float32 [m, k, P].
    """
    hold, variables = jax.lax.optimization_barrier, graph.clauses.reshape(-1)
    to_variables = hold(clause_messages(predicate, messages, graph.answers).reshape(len(messages), -1))
    fields = jax.ops.segment_sum(hold(jnp.log(to_variables).T), variables, len(graph.known))
    is_known = jax.nn.one_hot(graph.known, len(messages), dtype=bool)  # all False for unknown variables
    is_possible = is_known | (graph.known < 0)[:, None]
    marginals = hold(jax.nn.softmax(jnp.where(is_possible, fields, -jnp.inf), axis=-1).T)
    cavity = hold(marginals.at[:, variables].get(mode="promise_in_bounds")) / to_variables
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
    """Sweeps until no marginal changes by `tolerance` or more. The instances of a batch end independently.

    The mode in which all variables tilt towards one value has the multiplier (k-1) d λ. For most predicates it is far
    below -1, and undamped sweeps from a random start oscillate. Damping must exceed 1 - 2 / (1 + (k-1) d |λ|).

    Args:
      predicate: the predicate of every clause.
      graph: the instance, or a batch of instances.
      messages: the initial messages, float32 [..., m, k, P], from `random_messages` or `planted_messages`.
      damping: the weight of the old message, in [0, 1).
      max_sweeps: the largest number of sweeps.
      tolerance: the tolerance of probabilities.

    Returns:
      The marginals, the messages, and how the sweeps ended.

    Raises:
      InputError: an option is out of its range, or the clauses of the graph have another length.
    """
    if not 0 <= damping < 1 or max_sweeps < 1:
        raise InputError(f"damping={damping}, max_sweeps={max_sweeps}: give one in [0, 1) and at least one sweep")
    if graph.clauses.shape[-2] != predicate.k:
        raise InputError(f"clauses of {graph.clauses.shape[-2]} variables, and {predicate.name} takes {predicate.k}")
    *lead, k, num = graph.clauses.shape
    if (known := known_values(graph.known)) is not None and known.max(initial=-1) >= predicate.num_values:
        raise InputError(f"known holds {known.max()}, and {predicate.name} has values up to {predicate.num_values - 1}")
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

        nothing = jnp.full((len(messages), len(graph.known)), 2.0)  # no marginal, so the first sweep changes it
        start = (messages, nothing, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
        end, marginals, sweeps, change = jax.lax.while_loop(cond_fun, body_fun, start)
        return Beliefs(marginals.T, end, sweeps, change)

    return (run if messages.ndim == 3 else jax.vmap(run))(graph, messages)


def overlap(values: NDArray[np.integer], assignment: NDArray[np.integer], num_values: int) -> float:
    """The share of variables with equal values, under the best renaming of values.

    Deviation: the paper's Definition B.9 takes the minimum over permutations of the variables, probably by mistake.

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
