"""Selectors: how many of the best-scored positions a step reveals.

A selector has two methods. `plan` is called before the network and returns the number of positions
to reveal, or None if that depends on the output of the network. `choose` is called after it and
returns the positions. If every row plans 0, the network is not called.

Selectors are frozen dataclasses and pytrees. Their numbers are traced, so that one compiled program
serves all of them; their class and schedule are static. A selector of your own is such a dataclass
with these two methods. Source: Kim et al. 2025, section 2 and D.1.2 (K); Ben-Hamu et al. 2025,
arXiv:2505.24857 (`EntropyBudget`).
"""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.checks import check_scalar
from mdm_jax.errors import InputError, shown
from mdm_jax.randomness import gumbel, row_keys, split_rows
from mdm_jax.ranges import INT32, Range
from mdm_jax.schedules import Linear, Schedule, check_schedule
from mdm_jax.typing import Array, Confidence, Selector


def classes_in(tree: Any) -> Any:
    """The classes of a pytree, nested as the tree is, for a static argument beside a selector.

    A leaf is None. JAX 0.10.2 compares the PyTreeDefs of different registered dataclasses as equal
    if they have equal static fields and as many other fields; only the hashes differ. Without this
    argument jit reuses the wrong program for about one pair of classes in fifty.
    """
    level = jax.tree_util.default_registry.flatten_one_level(tree)
    return None if level is None else (type(tree), *map(classes_in, level[0]))


def rank_by_score(scores: Array, is_open: Array) -> Array:
    """The rank of each open position by score, int32 [B, L].

    The best-scored has rank 0, ties go to the lowest index, and closed positions come last.
    """
    positions = jnp.broadcast_to(jnp.arange(scores.shape[-1], dtype=jnp.int32), scores.shape)
    keys = (~is_open, -scores, positions)
    order = jax.lax.sort(keys, dimension=-1, num_keys=2, is_stable=True)[2]
    return jnp.argsort(order, axis=-1).astype(jnp.int32)


def best(scores: Array, is_open: Array, num_reveal: Array) -> Array:
    """The `num_reveal` [B] best-scored open positions of each row, bool [B, L]."""
    return is_open & (rank_by_score(scores, is_open) < num_reveal[:, None])


class Planned:
    """Base of selectors that plan: `choose` takes the planned number of best-scored positions."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Array) -> Array:
        """The `num_reveal` best-scored open positions, bool [B, L]."""
        del confidence
        return best(scores, is_open, num_reveal)


def check_setting(name: str, value: Any, range: Range, *, whole: bool = False) -> None:
    """InputError unless `value` is a number within `range`; tracers and JAX's placeholders pass."""
    if isinstance(value, numbers.Number | str | bytes) or getattr(value, "ndim", None) == 0:
        check_scalar(name, value, range, whole=whole)


def check_selector(selector: Any) -> None:
    """InputError unless `selector` has `plan` and `choose` and is a pytree of numbers."""
    if isinstance(selector, type) or not (hasattr(selector, "plan") and hasattr(selector, "choose")):
        raise InputError(f"selector must be an object with plan and choose, such as PerStep(1); got {shown(selector)}")
    leaves = jax.tree.leaves(selector)
    if any(leaf is selector for leaf in leaves):
        raise InputError(f"{type(selector).__name__} is no pytree; decorate it with jax.tree_util.register_dataclass")
    if dataclasses.is_dataclass(selector):  # jax.tree.leaves leaves None out
        fields = [field for field in dataclasses.fields(selector) if not field.metadata.get("static")]
        values = [getattr(selector, field.name) for field in fields]
        leaves += [value for value in values if value is None or _is_listed(value)]
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


def _is_listed(value: Any) -> bool:
    """Whether a field holds several plain numbers, which cannot be compared with an array of rows."""
    return isinstance(value, list | tuple) and any(isinstance(entry, numbers.Number) for entry in value)


PATIENCE = 1024
"""Steps of a block in which a selector that plans and has no `num_steps` may reveal nothing."""


def plan_step(selector: Selector, keys: Array, j: Array, n_0: Array, left: Array) -> Array | None:
    """The selector's plan, int32 [B], clipped to 0..`left` and such that every block ends.

    In step `selector.num_steps` of a block everything left is revealed. Without this attribute the
    plan may be 0 in the first `PATIENCE` steps of a block, and is at least 1 after them. Arguments
    as for `Selector.plan`.
    """
    planned = selector.plan(keys, j, n_0, left)
    if planned is None:
        return None
    planned, last = jnp.clip(planned.astype(jnp.int32), 0, left), getattr(selector, "num_steps", None)
    if last is None:
        return jnp.where(j > PATIENCE, jnp.maximum(planned, jnp.minimum(left, 1)), planned)
    return jnp.where(j >= last, left, planned)


def waits_at(selector: Selector, keys: Array, j: Array, n_0: Array, left: Array) -> Array:
    """Whether `plan_step` is 0, bool [B]; calls the selector's `waits` instead, if it has one."""
    if hasattr(selector, "waits"):
        waits: Array = selector.waits(keys, j, n_0, left)
        return waits
    planned = plan_step(selector, keys, j, n_0, left)
    assert planned is not None
    return planned == 0


def choose_step(
    selector: Selector, scores: Array, confidence: Confidence, is_open: Array, num_reveal: Array | None, *memory: Any
) -> Array:
    """The open positions that the selector chooses, bool [B, L], or else the best-scored one."""
    is_chosen = selector.choose(scores, confidence, is_open, num_reveal, *memory) & is_open
    lowest = jnp.finfo(jnp.float32).min
    finite = jnp.where(is_open, jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest), -jnp.inf)
    is_best = jax.nn.one_hot(jnp.argmax(finite, axis=-1), scores.shape[-1], dtype=bool)
    return is_chosen | (is_best & is_open & ~is_chosen.any(axis=-1, keepdims=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerStep(Planned):
    """Reveals the k best-scored positions of each row in every step.

    Attributes:
      k: positions per step and row, at least 1.

    Example:
      selector, left = mdm_jax.PerStep(2), jnp.array([8, 1])
      j = jnp.array([1, 1])
      assert selector.plan(jax.random.key(0), j, left, left).tolist() == [2, 1]
    """

    k: int = 1

    def __post_init__(self) -> None:
        check_setting("k", self.k, Range(1, INT32), whole=True)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """min(k, left); a traced k below 1 counts as 1."""
        del key, j, n_0
        return jnp.minimum(jnp.maximum(self.k, 1), left)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopK(Planned):
    """Reveals all masks in `num_steps` steps; the schedule sets how many masks each step leaves.

    This is the paper's deterministic K. `num_steps` is a number of steps, not of tokens; for a
    number of tokens per step see `PerStep`. A row of n_0 masks has

        floor(n_0 (1 - α(1 - j/T)) + 1e-4 + 1e-6 n_0)

    masks left after step j = 1..T. Without the small terms float32 rounding could leave one mask
    too few. Source: Kim et al. 2025, section 2 and D.1.2.

    Attributes:
      num_steps: T, at least 1.
      schedule: α_t; static.

    Example:
      selector, n_0 = mdm_jax.TopK(4), jnp.array([8])
      assert selector.plan(jax.random.key(0), jnp.array([1]), n_0, n_0).tolist() == [2]
    """

    num_steps: int
    schedule: Schedule = dataclasses.field(default=Linear(), metadata={"static": True})

    def __post_init__(self) -> None:
        check_setting("num_steps", self.num_steps, Range(1, INT32), whole=True)
        check_schedule(self.schedule)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """The masks that are left now, less those that the schedule leaves."""
        del key
        n_start = n_0.astype(jnp.float32)
        remaining = n_start * self.schedule.mask_prob(jnp.maximum(1 - j / self.num_steps, 0)) + 1e-4 + 1e-6 * n_start
        num_left = jnp.where(j >= self.num_steps, 0, jnp.floor(remaining).astype(jnp.int32))
        return jnp.maximum(left - num_left, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Binomial(Planned):
    """Reveals K ~ Binomial(masks left, (α_s - α_t) / (1 - α_t)) positions; all in the last step.

    This is the paper's random K. Step j = 1..T goes from t = 1 - (j - 1)/T to s = 1 - j/T. Source:
    Kim et al. 2025, section 2 and D.1.2.

    Attributes:
      num_steps: T, at least 1.
      schedule: α_t; static.

    Example:
      selector, left = mdm_jax.Binomial(4), jnp.array([8, 3])
      last_step = jnp.array([4, 4])
      assert selector.plan(jax.random.key(0), last_step, left, left).tolist() == [8, 3]
    """

    num_steps: int
    schedule: Schedule = dataclasses.field(default=Linear(), metadata={"static": True})

    def __post_init__(self) -> None:
        check_setting("num_steps", self.num_steps, Range(1, INT32), whole=True)
        check_schedule(self.schedule)

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """Draws K of each row in two parts: the first mask to reveal, and how many after it."""
        reveal_prob, first, rest_keys = self._first(key, j, left)
        num_after = jnp.maximum(left - 1 - first, 0)
        draw = jax.vmap(lambda row_key, n, p: jax.random.binomial(row_key, n, p))
        num_more = draw(rest_keys, num_after.astype(jnp.float32), reveal_prob).astype(jnp.int32)
        # Without XLA's optimisations jax.random.binomial gives -1 or n + 1 once in a million draws.
        drawn = jnp.where(first < left, 1 + jnp.clip(num_more, 0, num_after), 0)
        return jnp.where(j >= self.num_steps, left, drawn)

    def waits(self, key: Array, j: Array, n_0: Array, left: Array) -> Array:
        """Whether `plan` is 0, bool [B], without its second draw."""
        _, first, _ = self._first(key, j, left)
        return (left == 0) | ((first >= left) & (j < self.num_steps))

    def _first(self, key: Array, j: Array, left: Array) -> tuple[Array, Array, Array]:
        """The reveal probability, the index of the first mask to reveal (2^30 if none), and keys."""
        s = jnp.maximum(1 - j / self.num_steps, 0)
        t = jnp.maximum(1 - (j - 1) / self.num_steps, 0)
        # The last bits are dropped: jax.random.binomial treats probabilities up to 1/2 and above it
        # differently, a linear schedule hits 1/2, and programs may round to either side of it.
        reveal_prob = jax.lax.reduce_precision(self.schedule.reveal_prob(t, s), exponent_bits=8, mantissa_bits=18)
        first_keys, rest_keys = split_rows(row_keys(key, left.shape[0]), 2)
        # Exponential, with a resolution near 0 that is fine enough for a million steps.
        waited = jnp.exp(-gumbel(first_keys, 1)[:, 0])
        first = jnp.minimum(waited / -jnp.log1p(-reveal_prob), 2.0**30)
        return reveal_prob, jnp.where(reveal_prob > 0, first, 2.0**30).astype(jnp.int32), rest_keys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Threshold:
    """Reveals every open position that scores at least tau, and always the best-scored one.

    Attributes:
      tau: in units of the oracle's score; may be infinite.

    Example:
      scores, is_open = jnp.array([[0.9, 0.5, 0.7]]), jnp.ones((1, 3), bool)
      is_chosen = mdm_jax.Threshold(0.6).choose(scores, None, is_open, None)
      assert is_chosen.tolist() == [[True, False, True]]
    """

    tau: float

    def __post_init__(self) -> None:
        check_setting("tau", self.tau, Range(infinite=True))

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> None:
        """None: the number is known only after the network call."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: None) -> Array:
        """Positions with a score of at least tau, and the best-scored one: bool [B, L]."""
        del confidence, num_reveal
        return is_open & ((scores >= self.tau) | (rank_by_score(scores, is_open) == 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EntropyBudget:
    """Reveals the best-scored positions as long as their entropies, bar the largest, sum to gamma.

    Precisely, in order of score, the longest prefix with (sum of entropies) - (largest entropy) <=
    gamma. It holds at least the best-scored position. The difference bounds the KL divergence, in
    nats, between the joint law of the prefix and independent draws. Source: Ben-Hamu et al. 2025
    (arXiv:2505.24857).

    Attributes:
      gamma: nats, at least 0; may be infinite.

    Example:
      confidence = mdm_jax.confidence_from_logits(jax.random.key(0), jnp.zeros((1, 3, 2)))
      selector, is_open = mdm_jax.EntropyBudget(1.0), jnp.ones((1, 3), bool)  # entropies of 0.69
      is_chosen = selector.choose(-confidence.entropy, confidence, is_open, None)
      assert is_chosen.tolist() == [[True, True, False]]
    """

    gamma: float

    def __post_init__(self) -> None:
        check_setting("gamma", self.gamma, Range(0, infinite=True))

    def plan(self, key: Array, j: Array, n_0: Array, left: Array) -> None:
        """None: the number is known only after the network call."""

    def choose(self, scores: Array, confidence: Confidence, is_open: Array, num_reveal: None) -> Array:
        """The prefix, bool [B, L]. Its length is a count, since the difference never decreases."""
        del num_reveal
        rank = rank_by_score(scores, is_open)
        by_rank = jnp.argsort(rank, axis=-1)
        entropy = jnp.take_along_axis(jnp.where(is_open, confidence.entropy, 0), by_rank, axis=-1)
        excess = jnp.cumsum(entropy, axis=-1) - jax.lax.cummax(entropy, axis=1)
        return best(scores, is_open, jnp.maximum((excess <= self.gamma).sum(axis=-1), 1))
