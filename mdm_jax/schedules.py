"""The noise schedule α_t: the probability that a token is kept at time t, with α_0 = 1 and α_1 = 0.

Every schedule is written as 1 - α_t, the probability that a token is masked. This is the small
number near t = 0, and float32 would lose it in the subtraction. Source: Kim et al. 2025, section 2.
"""

import abc
import dataclasses
import math

import jax.numpy as jnp

from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import Range, check_number
from mdm_jax.typing import Array


class Schedule(abc.ABC):
    """A noise schedule. All methods take times in [0, 1], float of any shape, and keep the shape."""

    @abc.abstractmethod
    def mask_prob(self, t: Array) -> Array:
        """1 - α_t, the probability that a token is masked at t; relatively exact as t -> 0."""

    @abc.abstractmethod
    def alpha_prime(self, t: Array) -> Array:
        """The derivative α'_t, never positive."""

    @abc.abstractmethod
    def elbo_weight(self, t: Array) -> Array:
        """|α'_t| / (1 - α_t), the weight of Eq. 1; finite down to t = 1e-37 in float32."""

    def alpha(self, t: Array) -> Array:
        """α_t, the probability that a token is kept at t."""
        return 1 - self.mask_prob(t)

    def reveal_prob(self, t: Array, s: Array) -> Array:
        """(α_s - α_t) / (1 - α_t), the probability that a mask at t is gone at s < t; 1 if t = 0."""
        masked = self.mask_prob(t)
        return jnp.where(masked > 0, 1 - self.mask_prob(s) / jnp.where(masked > 0, masked, 1), 1.0)


def check_schedule(schedule: object) -> None:
    """InputError unless `schedule` is a Schedule."""
    if not isinstance(schedule, Schedule):
        raise InputError(f"schedule must be a Schedule, such as schedules.Linear(); got {shown(schedule)}")


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """α_t = 1 - t.

    Example:
      schedule, t = mdm_jax.Linear(), jnp.array([0.25])
      assert schedule.alpha(t).tolist() == [0.75] and schedule.elbo_weight(t).tolist() == [4.0]
    """

    def mask_prob(self, t: Array) -> Array:
        """= t."""
        return jnp.asarray(t)

    def alpha_prime(self, t: Array) -> Array:
        """= -1."""
        return -jnp.ones_like(t)

    def elbo_weight(self, t: Array) -> Array:
        """= 1 / t."""
        return 1 / jnp.asarray(t)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """α_t = 1 - cos(π (1 - t) / 2).

    Example:
      assert jnp.allclose(mdm_jax.Cosine().alpha(jnp.array([1 / 3])), 0.5)
    """

    def mask_prob(self, t: Array) -> Array:
        """= cos(π (1 - t) / 2) = sin(π t / 2)."""
        return jnp.sin(math.pi / 2 * jnp.asarray(t))

    def alpha_prime(self, t: Array) -> Array:
        """= -(π / 2) cos(π t / 2)."""
        return -math.pi / 2 * jnp.sin(math.pi / 2 * (1 - jnp.asarray(t)))

    def elbo_weight(self, t: Array) -> Array:
        """= (π / 2) / tan(π t / 2)."""
        return -self.alpha_prime(t) / self.mask_prob(t)


@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """α_t = 1 - t^p.

    Attributes:
      power: p, above 0.

    Example:
      assert mdm_jax.Polynomial(2.0).alpha(jnp.array([0.5])).tolist() == [0.75]
    """

    power: float

    def __post_init__(self) -> None:
        check_number("power", self.power, Range(above=0))

    def mask_prob(self, t: Array) -> Array:
        """= t^p."""
        return jnp.asarray(t) ** self.power

    def alpha_prime(self, t: Array) -> Array:
        """= -p t^(p - 1)."""
        return -self.power * jnp.asarray(t) ** (self.power - 1)

    def elbo_weight(self, t: Array) -> Array:
        """= p / t."""
        return self.power / jnp.asarray(t)
