"""What a loss draws: which positions are masked, which of them are scored, and how much the row weighs.

A new loss is a new draw, such as this one of at most half of the tokens:

    def early(key, x_0, is_prompt=None):
        masked = Subset()(key, x_0, is_prompt)
        few = masked.is_masked.sum(axis=-1) <= x_0.shape[1] / 2
        return masked._replace(weight=masked.weight * few)
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mdm_jax.masking import forward_mask, free_positions, free_rank, mask_last
from mdm_jax.orders import near_identity_order, uniform_order
from mdm_jax.randomness import one_key
from mdm_jax.schedules import Linear, Schedule
from mdm_jax.typing import Array


class Masked(NamedTuple):
    """What a draw gives: all that is random about a loss. Every field is [B, ...], so that any rows can be taken."""

    x_0: Array
    """int32 [B, L]"""
    is_masked: Array
    """bool [B, L], M"""
    is_scored: Array
    """bool [B, L], a subset of M"""
    weight: Array
    """float32 [B]"""
    example: Array
    """int32 [B]: the example that each row is; a draw may reorder the batch"""


class Draw(Protocol):
    """What a loss draws. A function with these arguments is a draw. Two methods are optional.

    `most_scored(batch, length)` gives (rows, budget): of each `rows` neighbouring rows at most `budget` positions are
    scored. This bounds how many logits are made. `token_loss(nats)` maps the nats of each scored token to its loss,
    both float32 [B, L].
    """

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws for tokens int32 [B, L] and bool [B, L]; the key is consumed."""
        ...


def stratified(key: Array, batch: int) -> Array:
    """(u + i/B) mod 1 with one u for the batch: each row alone is uniform on [0, 1), together they cover it evenly."""
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1


def _in_place(batch: int) -> Array:
    return jnp.arange(batch, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Elbo:
    """The draw of `elbo_loss`: a time, uniform on (0, 1] and stratified; each token is masked with rate 1 - α_t."""

    schedule: Schedule

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws t_i = 1 - ((u + i/B) mod 1) and the masks; weight |α'_t| / (1 - α_t)."""
        key_time, key_mask = jax.random.split(one_key(key))
        t = 1 - stratified(key_time, x_0.shape[0])
        _, is_masked = forward_mask(key_mask, x_0, t, schedule=self.schedule, mask_id=0, is_prompt=is_prompt)
        return Masked(x_0, is_masked, is_masked, self.schedule.elbo_weight(t), _in_place(len(t)))


@dataclasses.dataclass(frozen=True)
class Subset:
    """The draw of `subset_loss`: n ~ U{1..L'} masks, stratified, anywhere; weight L'/n.

    Examples come in pairs, the k-th smallest beside the k-th largest draw of n. Together the two have at most
    L + L/B + 2 masks, which bounds how many logits are made from Features.
    """

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws n = 1 + floor(u L'), with u stratified."""
        batch = x_0.shape[0]
        key_size, key_order = jax.random.split(one_key(key))
        num_free = free_positions(x_0, is_prompt).sum(axis=-1)
        uniforms = stratified(key_size, batch)
        drawn = jnp.floor(uniforms * num_free.astype(jnp.float32)).astype(jnp.int32)
        masked = _of_size(key_order, x_0, is_prompt, num_free, 1 + jnp.minimum(drawn, num_free - 1))
        ascending = jnp.argsort(uniforms).astype(jnp.int32)
        example = jnp.stack([ascending, ascending[::-1]], axis=-1).reshape(-1)[:batch]
        return jax.tree.map(lambda x: x[example], masked)

    def most_scored(self, batch: int, length: int) -> tuple[int, int]:
        """A pair has at most L + L/B + 2 masks; one more for rounding."""
        return 2, length + length // batch + 3


@dataclasses.dataclass(frozen=True)
class Skewed:
    """n = ⌈L' (1 - u^skew)⌉ masks, u ~ U(0, 1): mostly nearly all masked; weight L'/n.

    `Subset` draws n evenly. A random half of an answer says more about the rest than the half that a planned order
    reveals first, so decoding meets sets that are as hard as random sets of larger n. The optimum does not depend on
    the skew: p_theta exact for every M. Only skew 1 gives the bound on the likelihood.

    Attributes:
      skew: 1 draws n evenly; at 3 the median masked share is 7/8.
    """

    skew: float = 3.0

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws u, stratified, and the subset."""
        key_size, key_order = jax.random.split(one_key(key))
        num_free = free_positions(x_0, is_prompt).sum(axis=-1, dtype=jnp.int32)
        share = 1 - stratified(key_size, x_0.shape[0]) ** self.skew
        size = jnp.clip(jnp.ceil(share * num_free.astype(jnp.float32)).astype(jnp.int32), 1, num_free)
        return _of_size(key_order, x_0, is_prompt, num_free, size)


def _of_size(key: Array, x_0: Array, is_prompt: Array | None, num_free: Array, size: Array) -> Masked:
    """`size` [B] masks anywhere outside the prompt, all scored, with weight L'/n."""
    order = uniform_order(key, *x_0.shape)
    _, is_masked = mask_last(x_0, order, num_free - size, mask_id=0, is_prompt=is_prompt)
    weight = num_free / jnp.maximum(is_masked.sum(axis=-1), 1)
    return Masked(x_0, is_masked, is_masked, weight, _in_place(x_0.shape[0]))


@dataclasses.dataclass(frozen=True)
class Order:
    """The draw of `order_loss`: the last L' - n positions of an order are masked, the next one alone is scored.

    Attributes:
      num_swaps: the number of random swaps of two positions that are applied to the order from left to right; 0 is a
        π-learner from left to right. None draws a uniform order. Source: Kim et al. 2025, section 3.2 and C.1.
    """

    num_swaps: int | None = None

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws the order and n ~ U{0..L' - 1}; weight L'."""
        key_order, key_step = jax.random.split(one_key(key))
        if self.num_swaps is None:
            order = uniform_order(key_order, *x_0.shape)
        else:
            order = near_identity_order(key_order, x_0.shape[0], x_0.shape[1], self.num_swaps)
        return self.given(key_step, x_0, order, is_prompt)

    def given(self, key: Array, x_0: Array, order: Array, is_prompt: Array | None = None) -> Masked:
        """Draws n for a given order int32 [B, L]."""
        num_free = free_positions(x_0, is_prompt).sum(axis=-1)
        step = jax.random.randint(key, x_0.shape[:1], 0, jnp.maximum(num_free, 1))
        masked = next_of(x_0, order, step, is_prompt)
        return masked._replace(weight=num_free.astype(jnp.float32))

    def most_scored(self, batch: int, length: int) -> tuple[int, int]:
        """One position of each row."""
        return 1, 1


def next_of(x_0: Array, order: Array, step: Array, is_prompt: Array | None) -> Masked:
    """π{n..} masked and π(n) scored, n = `step` [B], with weight 1."""
    _, is_masked = mask_last(x_0, order, step, mask_id=0, is_prompt=is_prompt)
    is_next = is_masked & (free_rank(order, free_positions(x_0, is_prompt)) == step[:, None])
    return Masked(x_0, is_masked, is_next, jnp.ones(x_0.shape[0]), _in_place(x_0.shape[0]))


@dataclasses.dataclass(frozen=True)
class Focal:
    """The re-weighted loss of Ye et al. 2024 (arXiv:2410.14157), which the paper may have used. It bounds nothing.

        (T - k) Σ_{i masked} α (1 - p_i)^γ (-log p_i),   p_i = p_theta(x_0^i | x_t),   k ~ U{0..T-1}

    Each free token is masked with probability (k + 1) / T. The focal factor gives little weight to tokens that the
    network is sure of, the linear weight little to examples with many masks. The loss is divided by the mean masked
    share, (T + 1) / 2T, which makes it a mean over masked tokens, as in their program.

    Attributes:
      num_times: T.
      alpha: α.
      gamma: γ.
    """

    num_times: int = 20
    alpha: float = 0.25
    gamma: float = 1.0

    def __call__(self, key: Array, x_0: Array, is_prompt: Array | None = None) -> Masked:
        """Draws k and the masks."""
        key_time, key_mask = jax.random.split(one_key(key))
        k = jax.random.randint(key_time, x_0.shape[:1], 0, self.num_times)
        is_masked = jax.random.uniform(key_mask, x_0.shape) < ((k + 1) / self.num_times)[:, None]
        is_masked &= free_positions(x_0, is_prompt)
        weight = (self.num_times - k).astype(jnp.float32) * (2 * self.num_times / (self.num_times + 1))
        return Masked(x_0, is_masked, is_masked, weight, _in_place(x_0.shape[0]))

    def token_loss(self, nats: Array) -> Array:
        """α (1 - p)^γ · nats."""
        focal = self.alpha * jnp.maximum(-jnp.expm1(-nats), 1e-6) ** self.gamma  # the root of 0 has no gradient
        return focal * nats


DRAWS: dict[str, Draw] = {
    "subset": Subset(),
    "elbo": Elbo(Linear()),
    "order": Order(),
    "left-to-right": Order(num_swaps=0),
    "skewed": Skewed(),
    "reweighted": Focal(),
}
"""By name: what `--loss` takes."""
