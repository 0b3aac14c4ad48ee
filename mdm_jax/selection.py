"""How many of the best-scored positions a step reveals.

A selector answers twice: `plan`, before the network is called (None if it cannot know yet), and `choose`, after it; a
step for which every row plans 0 costs no network call. Selectors are frozen dataclasses and pytrees: their numbers are
traced, so that one compilation serves them all; class and schedule are static. A new one is such a dataclass with the
two methods. Source: Kim et al. 2025, section 2 and D.1.2 for K; Ben-Hamu et al. 2025 (arXiv:2505.24857) for the budget.
"""

import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError
from mdm_jax.randomness import row_keys
from mdm_jax.schedules import Linear, Schedule
from mdm_jax.typing import Array, Confidence


def classes_in(tree: Any) -> Any:
    """The classes that a pytree is made of, nested as it is; None for a leaf. What jit must be told beside a selector.

    To JAX (0.10.2) registered dataclasses with equal static fields and as many others are one structure: their
    PyTreeDefs compare equal and differ in their hashes alone, so that jit takes one for the other in about one pair of
    fifty.
    """
    level = jax.tree_util.default_registry.flatten_one_level(tree)
    return None if level is None else (type(tree), *map(classes_in, level[0]))


def rank_by_score(scores: Array, is_open: Array) -> Array:
    """The place of each open position when the open ones are sorted by score, int32 [B, L].

    The best has rank 0; ties go to the lowest index; closed positions come last, whatever their scores.
    """
    positions = jnp.broadcast_to(jnp.arange(scores.shape[-1], dtype=jnp.int32), scores.shape)
    keys = (~is_open, -scores, positions)
    order = jax.lax.sort(keys, dimension=-1, num_keys=2, is_stable=True)[2]
    return jnp.argsort(order, axis=-1).astype(jnp.int32)


def best(scores: Array, is_open: Array, num_reveal: Array) -> Array:
    """The `num_reveal` [B] best-scored open positions of each row, bool [B, L]."""
    return is_open & (rank_by_score(scores, is_open) < num_reveal[:, None])


class Planned:
    """Shared by the selectors that plan: `choose` takes the planned number of the best-scored open positions."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Array) -> Array:
        """The `num_reveal` best-scored open positions, bool [B, L]."""
        del confidence
        return best(scores, is_open, num_reveal)


def _check_at_least(name: str, value: Any, least: float, kind: Any) -> None:
    """InputError unless `value` is a `kind` of number from `least` on; traced values cannot be looked at."""
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer) and value.ndim == 0:
        value = value.item()
    is_known = isinstance(value, numbers.Number)
    most = np.iinfo(np.int32).max if kind is numbers.Integral else math.inf
    if is_known and not (isinstance(value, kind) and least <= value <= most):
        wanted = (
            f"a whole number from {least} to {most}" if kind is numbers.Integral else f"a number of at least {least}"
        )
        raise InputError(f"{name} must be {wanted}, got {value}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerStep(Planned):
    """K = k in every step."""

    k: int = 1

    def __post_init__(self) -> None:
        _check_at_least("k", self.k, 1, numbers.Integral)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """min(k, left)."""
        del key, j, n_0
        return jnp.minimum(self.k, left)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopK(Planned):
    """The paper's deterministic K: a fixed number of steps, and as many masks left after each as the schedule says.

    A row of n_0 masks has floor(n_0 (1 - α(1 - j/T)) + 1e-4 + 1e-6 n_0) left after step j = 1..T; the small terms keep
    float32 rounding from leaving one mask too few.
    """

    num_steps: int
    schedule: Schedule = dataclasses.field(default=Linear(), metadata={"static": True})

    def __post_init__(self) -> None:
        _check_at_least("num_steps", self.num_steps, 1, numbers.Integral)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """What is left now, less what the schedule leaves."""
        del key
        n_start = n_0.astype(jnp.float32)
        remaining = n_start * self.schedule.mask_prob(jnp.maximum(1 - j / self.num_steps, 0)) + 1e-4 + 1e-6 * n_start
        return jnp.maximum(left - jnp.floor(remaining).astype(jnp.int32), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Binomial(Planned):
    """The paper's random K ~ Binomial(masks left, (α_s - α_t) / (1 - α_t)), and all that is left in the last step.

    Step j goes from t = 1 - (j - 1)/T to s = 1 - j/T.
    """

    num_steps: int
    schedule: Schedule = dataclasses.field(default=Linear(), metadata={"static": True})

    def __post_init__(self) -> None:
        _check_at_least("num_steps", self.num_steps, 1, numbers.Integral)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """A draw for each row."""
        del n_0
        s = jnp.maximum(1 - j / self.num_steps, 0)
        t = jnp.maximum(1 - (j - 1) / self.num_steps, 0)
        # Without its last bits: draws change over at 1/2, which a linear schedule hits, and where programs may round
        # to either side.
        reveal = jax.lax.reduce_precision(self.schedule.reveal_prob(t, s), exponent_bits=8, mantissa_bits=18)
        draw = jax.vmap(lambda row_key, n, p: jax.random.binomial(row_key, n, p))
        drawn = draw(row_keys(key, left.shape[0]), left.astype(jnp.float32), reveal)
        return jnp.where(j >= self.num_steps, left, drawn.astype(jnp.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Threshold:
    """Every open position whose score is at least tau, and always the best one."""

    tau: float

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> None:
        """Not known before the network is called."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: None) -> Array:
        """Score >= tau, or the best: bool [B, L]."""
        del confidence, num_reveal
        return is_open & ((scores >= self.tau) | (rank_by_score(scores, is_open) == 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EntropyBudget:
    """In order of score, the longest prefix whose summed entropy less its largest is at most gamma, at least one.

    That difference (nats) bounds what drawing the prefix independently can lose against drawing it jointly.
    """

    gamma: float

    def __post_init__(self) -> None:
        _check_at_least("gamma", self.gamma, 0, numbers.Real)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> None:
        """Not known before the network is called."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: None) -> Array:
        """The prefix as bool [B, L]; the difference never falls as the prefix grows, so counting suffices."""
        del num_reveal
        rank = rank_by_score(scores, is_open)
        by_rank = jnp.argsort(rank, axis=-1)
        entropy = jnp.take_along_axis(jnp.where(is_open, confidence.entropy, 0), by_rank, axis=-1)
        excess = jnp.cumsum(entropy, axis=-1) - jax.lax.cummax(entropy, axis=1)
        return best(scores, is_open, jnp.maximum((excess <= self.gamma).sum(axis=-1), 1))
