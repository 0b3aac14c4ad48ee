"""The degrees at which planted constraint problems become hard, and indistinguishable from random ones.

A degree here is d = k P / N, the mean number of clauses that contain a variable. A variable then has (k - 1) d
neighbours, and there are d / k clauses per variable. The paper uses "average degree" for all three.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.progress import Bar
from mdm_jax.theory.belief_propagation import FactorGraph, clause_messages, sweep
from mdm_jax.theory.predicates import Predicate, num_tuples
from mdm_jax.typing import Array

POPULATION = 20_000
"""The number of messages in population dynamics."""
_PARTS = 32  # of the population, which are renewed one after the other
_RENEWALS = 60
_HALVINGS = 7
_RESOLUTION = 1e-3  # nats, of a free entropy


def kesten_stigum(predicate: Predicate) -> float:
    """D_KS, the degree above which belief propagation from a random start finds the planted assignment.

        1 / D_KS = ρ( 1/k Σ_{i≠j} T_ij ⊗ T_ij )  on the differences of distributions.

    For a symmetric predicate, 1 = d (k - 1) λ², where λ is the second eigenvalue of its transfer matrix T. Source: Kim
    et al. 2025, Definition B.12.

    Args:
      predicate: a predicate that satisfies assumption B.11.

    Returns:
      D_KS; infinite if λ = 0, as for xor(k) with k above 2.

    Raises:
      InputError: the predicate does not satisfy B.11.
    """
    predicate.check_balanced("the Kesten-Stigum threshold")
    k, m = predicate.k, predicate.num_values
    centre = np.eye(m) - 1 / m
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    total = sum(np.kron(t, t) for t in (centre @ predicate.transfer(i, j) @ centre for i, j in pairs)) / k
    radius = float(np.abs(np.linalg.eigvals(total)).max())
    return math.inf if radius < 1e-12 else 1 / radius


def jacobian_radius(key: Array, predicate: Predicate, graph: FactorGraph, *, steps: int = 30) -> float:
    """The spectral radius of the Jacobian of belief propagation at uniform messages, on one graph.

    It is found by power iteration among changes that do not tilt any argument towards a value on average. A common tilt
    has the multiplier (k - 1) d λ, on which the threshold does not depend. If every variable is in d clauses, the
    radius tends to |λ| √((k - 1) (d - 1)) as random graphs grow. A finite graph has this value or a larger one: of 40
    random simple 4-regular graphs of 400 variables, 34 agree to four digits, and 6 are 2 to 16% above.

    Args:
      key: the key of the initial change, consumed.
      predicate: a predicate that satisfies assumption B.11.
      graph: one instance.
      steps: the number of averaged iterations, which follow as many without averaging.
    """
    predicate.check_balanced("the Jacobian at the uniform point")
    shape = (predicate.num_values, *graph.clauses.shape)
    point = jnp.full(shape, 1 / predicate.num_values)

    @jax.jit
    def step(change: Array) -> tuple[Array, Array]:
        _, change = jax.jvp(lambda mu: sweep(predicate, graph, mu)[0], (point,), (change,))
        change = change - change.mean(axis=(1, 2), keepdims=True)
        size = jnp.linalg.norm(change)
        return change / jnp.maximum(size, 1e-37), size

    change, logs = jax.random.normal(key, shape), []
    change = change - change.mean(axis=0, keepdims=True)
    for _ in range(2 * steps):
        change, size = step(change)
        if float(size) < 1e-30:  # the Jacobian is 0, as for parities of three or more
            return 0.0
        logs.append(math.log(float(size)))
    return math.exp(float(np.mean(logs[steps:])))


def condensation(predicate: Predicate, key: Array, *, progress: str | None = None) -> float:
    """D_cond, the degree above which the planted model differs from the random one and determines σ.

    At this degree the Bethe free entropy of the planted fixed point, from population dynamics, exceeds that of the
    random model, log m + (d / k) log γ. A continuous transition has D_cond = D_KS.
    Source: Kim et al. 2025, Definition B.12; Krzakala and Zdeborova 2009, "Hiding quiet solutions in random constraint
    satisfaction problems".

    Args:
      predicate: a symmetric predicate that satisfies assumption B.11.
      key: consumed.
      progress: the label of a progress bar; None shows none.

    Returns:
      D_cond, to about 1%.

    Raises:
      InputError: the predicate is not symmetric or does not satisfy B.11, or it does not depend on its arguments.
    """
    predicate.check_balanced("the condensation threshold")
    if not predicate.is_symmetric:
        raise InputError(f"population dynamics needs a symmetric predicate, and {predicate.name} is not")
    highest = min(kesten_stigum(predicate), _information_bound(predicate))
    if math.isinf(highest):
        raise InputError(f"{predicate.name} does not depend on its arguments, so no degree is high enough")
    depth = math.ceil(highest + 4 * math.sqrt(highest) + 5)
    keys = iter(jax.random.split(key, _HALVINGS + 1))

    def gain(degree: float) -> float:
        return float(free_entropy_gain(next(keys), predicate, degree, depth=depth))

    below, above = (0.0, 0.0), (highest, gain(highest))
    if above[1] < _RESOLUTION:
        return highest
    for _ in Bar(range(_HALVINGS), desc=progress, disable=progress is None, leave=False):
        degree = (below[0] + above[0]) / 2
        here = degree, gain(degree)
        below, above = (below, here) if here[1] >= _RESOLUTION else (here, above)
    zero = below[0] + (above[0] - below[0]) * below[1] / (below[1] - above[1])
    return min(max(zero, below[0]), above[0])


def _information_bound(predicate: Predicate) -> float:
    """The degree at which the information of the clauses reaches that of the assignment, N log m."""
    ratio = np.asarray(predicate.flat) / predicate.satisfied
    information = float(np.mean(np.where(ratio > 0, ratio * np.log(np.where(ratio > 0, ratio, 1)), 0)))
    return math.inf if information < 1e-12 else predicate.k * math.log(predicate.num_values) / information


@functools.partial(jax.jit, static_argnames=("predicate", "depth"))
def free_entropy_gain(key: Array, predicate: Predicate, degree: Array | float, *, depth: int) -> Array:
    """The Bethe free entropy per variable (nats) of the planted fixed point minus that of the random model.

        E log Z_i / m + (d / k) E log Z_S / γ - d E log m Z_iS

    All three terms are 0 for uniform messages. The sum is negative if the planted assignment is one of many equally
    good ones, and positive if it stands out. Messages are renewed in parts. If all were renewed at once, a common tilt
    towards one value would grow with each renewal (see `propagate`).

    Args:
      key: consumed.
      predicate: a symmetric predicate that satisfies assumption B.11.
      degree: d.
      depth: the largest number of clauses of a variable, well above d.

    Returns:
      float32 scalar, the mean over the later half of all renewals of `POPULATION` messages.
    """
    k, m, n = predicate.k, predicate.num_values, POPULATION // predicate.num_values
    num_new = n // _PARTS
    log_others = jnp.log(jnp.asarray(predicate.table.reshape(m, -1), jnp.float32))
    values = jnp.asarray(np.indices((m,) * (k - 1)).reshape(k - 1, -1), jnp.int32)
    counts = jnp.arange(depth, dtype=jnp.float32)
    at_most = jnp.cumsum(jnp.exp(counts * jnp.log(degree) - degree - jax.lax.lgamma(counts + 1)))

    def pick(key: Array, population: Array, planted: Array) -> Array:
        return population[planted, jax.random.randint(key, planted.shape, 0, population.shape[1])]

    def fields(key: Array, log_messages: Array, planted: Array) -> Array:
        """Sums of log m ν over a Poisson number of clauses, [..., m], for variables with planted values [...]."""
        key_count, key_pick = jax.random.split(key)
        count = jnp.searchsorted(at_most, jax.random.uniform(key_count, planted.shape))
        logs = pick(key_pick, log_messages, jnp.broadcast_to(planted[..., None], (*planted.shape, depth)))
        return jnp.where(_below(count, depth)[..., None], logs, 0.0).sum(axis=-2)

    def renew(log_messages: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        """Renews one part of `log_messages`, log m ν, float32 [m, n, m]."""
        index, key = part
        key_clause, key_others, key_own = jax.random.split(key, 3)
        # One clause of a variable of each planted value; together they have the distribution of all clauses.
        drawn = jax.random.categorical(key_clause, log_others[:, None], axis=-1, shape=(m, num_new))
        others = fields(key_others, log_messages, values[:, drawn].reshape(k - 1, m * num_new))
        here = jnp.broadcast_to(jnp.arange(m)[:, None], (m, num_new)).reshape(1, m * num_new)
        own = fields(key_own, log_messages, here)
        messages = jnp.moveaxis(jax.nn.softmax(jnp.concatenate([own, others]), axis=-1), -1, 0)
        new = clause_messages(predicate, messages, jnp.ones(m * num_new, jnp.int32))[:, 0]
        log_new = jnp.log(m * new / new.sum(axis=0, keepdims=True)).T.reshape(m, num_new, m)
        start = index % _PARTS * num_new
        log_messages = jax.lax.dynamic_update_slice_in_dim(log_messages, log_new, start, axis=1)
        satisfied = (messages[:, 0] * new).sum(axis=0)  # Z_S, and also Z_iS in units of Σ ν
        z_variable = jax.nn.logsumexp(own, axis=-1).mean() - math.log(m)
        z_clause = jnp.log(satisfied / predicate.satisfied).mean()
        z_edge = jnp.log(m * satisfied / new.sum(axis=0)).mean()
        return log_messages, z_variable + degree / k * z_clause - degree * z_edge

    start = jnp.broadcast_to(jnp.log(0.999 * m * jnp.eye(m) + 0.001)[:, None], (m, num_new * _PARTS, m))
    parts = jnp.arange(_PARTS * _RENEWALS), jax.random.split(key, _PARTS * _RENEWALS)
    _, gains = jax.lax.scan(renew, start, parts)
    return gains[len(gains) // 2 :].mean()


def intractable_mask_rates(predicate: Predicate, num_latents: int, key: Array | None = None) -> tuple[float, float]:
    """The range of masking rates that no efficient algorithm can fill in, by Proposition 3.3.

        1 - D_KS / (γ k N^(k-1)) ≤ α ≤ 1 - D_cond / (γ k N^(k-1))

    The predicate of every ordered k-tuple of N latents is observed (Example 3.2). N^(k-1) is the paper's number of
    tuples per latent; the exact number is N! / (N - k)! / N. The revealed observations with value 1 are the clauses of
    a planted problem with D_cond ≤ d ≤ D_KS.

    The proposition uses only these. The revealed observations with value 0 can determine the latents: a 0 of nae(3, 3)
    says that three latents are equal, and this interval has enough of them (`tests/test_theory_belief_propagation.py`).

    Args:
      predicate: as for `condensation`.
      num_latents: N.
      key: the key of the population dynamics, consumed; None is seed 0.

    Returns:
      The lowest and the highest rate, in [0, 1]. They are equal if the interval is empty.

    Raises:
      InputError: as `condensation`, or N < k.
    """
    num_tuples(num_latents, predicate.k)
    d_cond = condensation(predicate, jax.random.key(0) if key is None else key)
    scale = predicate.satisfied * predicate.k * num_latents ** (predicate.k - 1)
    low, high = (min(max(1 - d / scale, 0.0), 1.0) for d in (kesten_stigum(predicate), d_cond))
    return low, high


def _below(count: Array, depth: int) -> Array:
    """Whether each of the numbers 0 to `depth` - 1 is below `count` [...]: bool [..., depth]."""
    return jax.lax.broadcasted_iota(jnp.int32, (*count.shape, depth), count.ndim) < count[..., None]
