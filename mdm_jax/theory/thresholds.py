"""Where planted constraint problems become hard, and where they become impossible to tell from random ones.

Every degree here is d = k P / N, the clauses that each variable is in on average; it has (k - 1) d neighbours, and
there are d / k clauses per variable. The paper calls all three "average degree" in places.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.report.progress import Bar
from mdm_jax.theory.belief_propagation import FactorGraph, clause_messages, sweep
from mdm_jax.theory.predicates import Predicate, num_tuples
from mdm_jax.typing import Array

POPULATION = 20_000
"""Messages in population dynamics."""
_PARTS = 32  # in which the population is renewed
_RENEWALS = 60
_HALVINGS = 7
_RESOLUTION = 1e-3  # nats, of a free entropy


def kesten_stigum(predicate: Predicate) -> float:
    """D_KS in clauses per variable: above it, belief propagation from a random start finds the planted assignment.

        1 / D_KS = ρ( 1/k Σ_{i≠j} T_ij ⊗ T_ij )  on the differences of distributions;

    for a predicate that does not depend on the order of its arguments, 1 = d (k - 1) λ² with λ the second eigenvalue of
    its transfer matrix T. Source: Kim et al. 2025, Definition B.12.

    Args:
      predicate: fulfils assumption B.11.

    Returns:
      D_KS; infinite where λ = 0, as for xor(k) with k above 2.

    Raises:
      InputError: the predicate does not fulfil B.11.
    """
    predicate.check_balanced("the Kesten-Stigum threshold")
    k, m = predicate.k, predicate.num_values
    centre = np.eye(m) - 1 / m
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    total = sum(np.kron(t, t) for t in (centre @ predicate.transfer(i, j) @ centre for i, j in pairs)) / k
    radius = float(np.abs(np.linalg.eigvals(total)).max())
    return math.inf if radius < 1e-12 else 1 / radius


def jacobian_radius(key: Array, predicate: Predicate, graph: FactorGraph, *, steps: int = 30) -> float:
    """The spectral radius of belief propagation's Jacobian at the point where nothing is known, on one graph.

    By power iteration, among changes that tilt no place towards any value on average: a common tilt has the multiplier
    (k - 1) d λ, on which the threshold does not depend. Where every variable is in d clauses, it tends to
    |λ| √((k - 1) (d - 1)) as random graphs grow. A finite graph has that value or a larger one: of 40 random simple
    4-regular graphs of 400 variables, 34 have it to four digits, and 6 are 2 to 16% above.

    Args:
      key: of the start, consumed.
      predicate: fulfils assumption B.11.
      graph: one instance.
      steps: of the iteration that are averaged, after as many that are not.
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
        if float(size) < 1e-30:  # nothing is passed on, as by parities of three or more
            return 0.0
        logs.append(math.log(float(size)))
    return math.exp(float(np.mean(logs[steps:])))


def condensation(predicate: Predicate, key: Array, *, progress: str | None = None) -> float:
    """D_cond in clauses per variable: above it, the planted model can be told from the random one, and σ be found.

    It is the degree at which the Bethe free entropy of the planted fixed point, by population dynamics, overtakes that
    of the random model, log m + (d / k) log γ. A continuous transition has D_cond = D_KS.
    Source: Kim et al. 2025, Definition B.12; Krzakala and Zdeborova 2009, "Hiding quiet solutions in random constraint
    satisfaction problems".

    Args:
      predicate: fulfils assumption B.11, and does not depend on the order of its arguments.
      key: consumed.
      progress: the label of a progress bar; None shows none.

    Returns:
      D_cond, to about 1%.

    Raises:
      InputError: the predicate is not such.
    """
    predicate.check_balanced("the condensation threshold")
    if not predicate.is_symmetric:
        raise InputError(f"population dynamics takes the arguments of {predicate.name} for alike, and they are not")
    highest = min(kesten_stigum(predicate), _information_bound(predicate))
    if math.isinf(highest):
        raise InputError(f"{predicate.name} tells nothing of its arguments, so that no degree is high enough")
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
    """The degree at which the clauses would tell more of the assignment than there is to know, N log m."""
    ratio = np.asarray(predicate.flat) / predicate.satisfied
    told = float(np.mean(np.where(ratio > 0, ratio * np.log(np.where(ratio > 0, ratio, 1)), 0)))
    return math.inf if told < 1e-12 else predicate.k * math.log(predicate.num_values) / told


@functools.partial(jax.jit, static_argnames=("predicate", "depth"))
def free_entropy_gain(key: Array, predicate: Predicate, degree: Array | float, *, depth: int) -> Array:
    """Bethe free entropy per variable (nats) of the planted fixed point, less that of the random model.

        E log Z_i / m + (d / k) E log Z_S / γ - d E log m Z_iS,

    all three 0 where nothing is known. It is negative where the planted assignment is one of many as good, positive
    where it stands out. Messages are renewed a few at a time: all at once, a common tilt towards one value would grow
    with each renewal (see `propagate`).

    Args:
      key: consumed.
      predicate: symmetric, and fulfils assumption B.11.
      degree: d.
      depth: clauses of a variable at most, well above d.

    Returns:
      float32 scalar, averaged over the later half of all renewals of `POPULATION` messages.
    """
    k, m, n = predicate.k, predicate.num_values, POPULATION // predicate.num_values
    num_new = n // _PARTS
    log_others = jnp.log(jnp.asarray(predicate.table.reshape(m, -1), jnp.float32))
    values = jnp.asarray(np.indices((m,) * (k - 1)).reshape(k - 1, -1), jnp.int32)
    counts = jnp.arange(depth, dtype=jnp.float32)
    at_most = jnp.cumsum(jnp.exp(counts * jnp.log(degree) - degree - jax.lax.lgamma(counts + 1)))

    def pick(key: Array, population: Array, planted: Array) -> Array:
        return population[planted, jax.random.randint(key, planted.shape, 0, population.shape[1])]

    def fields(key: Array, told: Array, planted: Array) -> Array:
        """Sums of log m ν over a Poisson number of clauses, for variables with planted values [...], [..., m]."""
        key_count, key_pick = jax.random.split(key)
        count = jnp.searchsorted(at_most, jax.random.uniform(key_count, planted.shape))
        logs = pick(key_pick, told, jnp.broadcast_to(planted[..., None], (*planted.shape, depth)))
        return jnp.where(_below(count, depth)[..., None], logs, 0.0).sum(axis=-2)

    def renew(told: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        """`told` holds log m ν, float32 [m, n, m]."""
        index, key = part
        key_clause, key_others, key_own = jax.random.split(key, 3)
        # A clause around a variable of each planted value, which together are clauses as they occur.
        drawn = jax.random.categorical(key_clause, log_others[:, None], axis=-1, shape=(m, num_new))
        others = fields(key_others, told, values[:, drawn].reshape(k - 1, m * num_new))
        here = jnp.broadcast_to(jnp.arange(m)[:, None], (m, num_new)).reshape(1, m * num_new)
        own = fields(key_own, told, here)
        messages = jnp.moveaxis(jax.nn.softmax(jnp.concatenate([own, others]), axis=-1), -1, 0)
        new = clause_messages(predicate, messages, jnp.ones(m * num_new, jnp.int32))[:, 0]
        log_new = jnp.log(m * new / new.sum(axis=0, keepdims=True)).T.reshape(m, num_new, m)
        told = jax.lax.dynamic_update_slice_in_dim(told, log_new, index % _PARTS * num_new, axis=1)
        satisfied = (messages[:, 0] * new).sum(axis=0)  # Z_S, and in units of Σ ν also Z_iS
        z_variable = jax.nn.logsumexp(own, axis=-1).mean() - math.log(m)
        z_clause = jnp.log(satisfied / predicate.satisfied).mean()
        z_edge = jnp.log(m * satisfied / new.sum(axis=0)).mean()
        return told, z_variable + degree / k * z_clause - degree * z_edge

    start = jnp.broadcast_to(jnp.log(0.999 * m * jnp.eye(m) + 0.001)[:, None], (m, num_new * _PARTS, m))
    parts = jnp.arange(_PARTS * _RENEWALS), jax.random.split(key, _PARTS * _RENEWALS)
    _, gains = jax.lax.scan(renew, start, parts)
    return gains[len(gains) // 2 :].mean()


def intractable_mask_rates(predicate: Predicate, num_latents: int, key: Array | None = None) -> tuple[float, float]:
    """The rates of masking between which Proposition 3.3 has a masking that no efficient algorithm can fill in.

        1 - D_KS / (γ k N^(k-1)) ≤ α ≤ 1 - D_cond / (γ k N^(k-1)),

    where the predicate of every ordered k-tuple of N latents is observed (Example 3.2; N^(k-1) is the paper's count of
    them, which is N! / (N - k)! / N in fact). The revealed observations that came out as 1 are then the clauses of a
    planted problem with D_cond ≤ d ≤ D_KS. The proposition looks at these alone. Those that came out as 0 are revealed
    too, and can give the latents away: a 0 of nae(3, 3) says that three latents are equal, and enough of them are left
    in this very interval (`tests/test_theory_belief_propagation.py`).

    Args:
      predicate: as for `condensation`.
      num_latents: N.
      key: of the population dynamics, consumed; None is seed 0.

    Returns:
      The lowest and the highest rate, in [0, 1]; equal where there is no gap between finding and guessing.

    Raises:
      InputError: the predicate is not such, or N < k.
    """
    num_tuples(num_latents, predicate.k)
    d_cond = condensation(predicate, jax.random.key(0) if key is None else key)
    scale = predicate.satisfied * predicate.k * num_latents ** (predicate.k - 1)
    low, high = (min(max(1 - d / scale, 0.0), 1.0) for d in (kesten_stigum(predicate), d_cond))
    return low, high


def _below(count: Array, depth: int) -> Array:
    """Whether each of `depth` numbers lies below `count` [...]: bool [..., depth]."""
    return jax.lax.broadcasted_iota(jnp.int32, (*count.shape, depth), count.ndim) < count[..., None]
