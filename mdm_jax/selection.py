"""How many of the best-scored positions a step reveals.

A selector answers twice: `plan`, before the network is called (None if it cannot know yet), and `choose`, after it; a
step for which every row plans 0 costs no network call. Selectors are frozen dataclasses and pytrees: their numbers are
traced, so that one compilation serves them all; class and schedule are static. A new one is such a dataclass with the
two methods. Source: Kim et al. 2025, section 2 and D.1.2 for K; Ben-Hamu et al. 2025 (arXiv:2505.24857) for the budget.
"""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.errors import InputError, shown
from mdm_jax.randomness import gumbel, row_keys, split_rows
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.schedules import Linear, Schedule, check_schedule
from mdm_jax.typing import Array, Confidence, Selector


def classes_in(tree: Any) -> Any:
    """The classes that a pytree is made of, nested as it is; None for a leaf. A static argument beside a selector.

    JAX 0.10.2 compares the PyTreeDefs of different registered dataclasses as equal if their static fields and their
    numbers of other fields match; only the hashes differ. Without this argument jit reuses the wrong program in about
    one pair of fifty.
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


def _check_setting(name: str, value: Any, range: Range, *, whole: bool = False) -> None:
    """InputError unless `value` is a number within `range`; what is traced, or JAX's stand-in for it, passes."""
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer) and value.ndim == 0:
        value = value.item()
    if isinstance(value, numbers.Number | str | bytes):
        check_number(name, value, range, whole=whole)


def check_selector(selector: Any) -> None:
    """InputError unless it has the two methods, and is a pytree of numbers."""
    if isinstance(selector, type) or not (hasattr(selector, "plan") and hasattr(selector, "choose")):
        raise InputError(f"selector must be an object with plan and choose, such as PerStep(1); got {shown(selector)}")
    leaves = jax.tree.leaves(selector)
    if any(leaf is selector for leaf in leaves):
        raise InputError(f"{type(selector).__name__} is no pytree; decorate it with jax.tree_util.register_dataclass")
    if dataclasses.is_dataclass(selector):  # None is no leaf
        fields = [field for field in dataclasses.fields(selector) if not field.metadata.get("static")]
        leaves += [None for field in fields if getattr(selector, field.name) is None]
    for leaf in leaves:
        dtype = leaf.dtype if isinstance(leaf, np.ndarray | np.generic | jax.Array) else np.dtype(type(leaf))
        if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_)):
            raise InputError(f"the numbers of a selector must be numbers; {shown(selector)} holds {shown(leaf)}")
    num_steps = getattr(selector, "num_steps", 0)
    if (
        not isinstance(num_steps, numbers.Number | np.ndarray | np.generic | jax.Array)
        or getattr(num_steps, "shape", ()) != ()
    ):
        raise InputError(f"num_steps must be one number, got {shown(selector)}")
    if not jnp.issubdtype(getattr(num_steps, "dtype", np.dtype(type(num_steps))), jnp.integer):
        raise InputError(f"num_steps must be a whole number, got {shown(selector)}")


PATIENCE = 1024
"""Steps that a row may wait in a block for a selector that plans and does not say by which step it has planned all."""


def plan_step(selector: Selector, keys: Array, j: Array, n_0: Array, left: Array) -> Array | None:
    """What the selector plans, int32 [B], held to what every step owes: between 0 and `left`, and an end.

    By its last step, `selector.num_steps`, a block has no mask left. A selector without such a number may plan nothing
    for `PATIENCE` steps of a block, and from then on one position at least. Arguments as for `Selector.plan`.
    """
    planned = selector.plan(keys, j, n_0, left)
    if planned is None:
        return None
    planned, last = jnp.clip(planned.astype(jnp.int32), 0, left), getattr(selector, "num_steps", None)
    if last is None:
        return jnp.where(j > PATIENCE, jnp.maximum(planned, jnp.minimum(left, 1)), planned)
    return jnp.where(j >= last, left, planned)


def waits_at(selector: Selector, keys: Array, j: Array, n_0: Array, left: Array) -> Array:
    """Whether `plan_step` is 0, bool [B]: by the selector's `waits`, if it has that, which may cost less."""
    if hasattr(selector, "waits"):
        waits: Array = selector.waits(keys, j, n_0, left)
        return waits
    planned = plan_step(selector, keys, j, n_0, left)
    assert planned is not None
    return planned == 0


def choose_step(
    selector: Selector, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Array | None
) -> Array:
    """What the selector chooses of the open positions, bool [B, L], and the best-scored where it chooses none."""
    is_chosen = selector.choose(scores, confidence, is_open, num_reveal) & is_open
    lowest = jnp.finfo(jnp.float32).min
    sound = jnp.where(is_open, jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest), -jnp.inf)
    is_best = jax.nn.one_hot(jnp.argmax(sound, axis=-1), scores.shape[-1], dtype=bool)
    return is_chosen | (is_best & is_open & ~is_chosen.any(axis=-1, keepdims=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerStep(Planned):
    """K = k in every step."""

    k: int = 1

    def __post_init__(self) -> None:
        _check_setting("k", self.k, Range(1, INT32), whole=True)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """min(k, left), with a k of at least 1."""
        del key, j, n_0
        return jnp.minimum(jnp.maximum(self.k, 1), left)


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
        _check_setting("num_steps", self.num_steps, Range(1, INT32), whole=True)
        check_schedule(self.schedule)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """What is left now, less what the schedule leaves."""
        del key
        n_start = n_0.astype(jnp.float32)
        remaining = n_start * self.schedule.mask_prob(jnp.maximum(1 - j / self.num_steps, 0)) + 1e-4 + 1e-6 * n_start
        num_left = jnp.where(j >= self.num_steps, 0, jnp.floor(remaining).astype(jnp.int32))
        return jnp.maximum(left - num_left, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Binomial(Planned):
    """The paper's random K ~ Binomial(masks left, (α_s - α_t) / (1 - α_t)), and all that is left in the last step.

    Step j goes from t = 1 - (j - 1)/T to s = 1 - j/T.
    """

    num_steps: int
    schedule: Schedule = dataclasses.field(default=Linear(), metadata={"static": True})

    def __post_init__(self) -> None:
        _check_setting("num_steps", self.num_steps, Range(1, INT32), whole=True)
        check_schedule(self.schedule)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """A draw for each row: of the masks, one after the other, the first that is revealed, then those behind it."""
        reveal, first, rest_keys = self._first(key, j, left)
        behind = jnp.maximum(left - 1 - first, 0)
        draw = jax.vmap(lambda row_key, n, p: jax.random.binomial(row_key, n, p))
        rest = draw(rest_keys, behind.astype(jnp.float32), reveal).astype(jnp.int32)
        # JAX's binomial gives -1 or n + 1 about once in a million draws where XLA does not optimise.
        drawn = jnp.where(first < left, 1 + jnp.clip(rest, 0, behind), 0)
        return jnp.where(j >= self.num_steps, left, drawn)

    def waits(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """Whether `plan` is 0, bool [B], without its second draw."""
        _, first, _ = self._first(key, j, left)
        return (left == 0) | ((first >= left) & (j < self.num_steps))

    def _first(self, key: Array, j: Array, left: Array) -> tuple[Array, Array, Array]:
        """The probability of each mask to be revealed, the first that is, from 0 (2^30 for none), and keys [B]."""
        s = jnp.maximum(1 - j / self.num_steps, 0)
        t = jnp.maximum(1 - (j - 1) / self.num_steps, 0)
        # Without its last bits: draws change over at 1/2, which a linear schedule hits, and where programs may round
        # to either side.
        reveal = jax.lax.reduce_precision(self.schedule.reveal_prob(t, s), exponent_bits=8, mantissa_bits=18)
        first_keys, rest_keys = split_rows(row_keys(key, left.shape[0]), 2)
        waited = jnp.exp(-gumbel(first_keys, 1)[:, 0])  # exponential, and fine near 0, for a million steps
        first = jnp.minimum(waited / -jnp.log1p(-reveal), 2.0**30)
        return reveal, jnp.where(reveal > 0, first, 2.0**30).astype(jnp.int32), rest_keys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Threshold:
    """Every open position whose score is at least tau, and always the best one."""

    tau: float

    def __post_init__(self) -> None:
        _check_setting("tau", self.tau, Range(infinite=True))

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
        _check_setting("gamma", self.gamma, Range(0, infinite=True))

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
