"""The noise schedule alpha_t: the probability that a token is still there at time t, with alpha_0 = 1 and alpha_1 = 0.

Every schedule is written through 1 - alpha_t, the probability that a token is masked, because that is the small number
near t = 0 which float32 would lose in the subtraction. Source: Kim et al. 2025, section 2.
"""

import abc
import dataclasses
import math

import jax.numpy as jnp

from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import Range, check_number
from mdm_jax.typing import Array


class Schedule(abc.ABC):
    """A noise schedule. All methods take t in [0, 1], float of any shape, and return the same shape."""

    @abc.abstractmethod
    def mask_prob(self, t: Array) -> Array:
        """1 - alpha_t: the probability that a token is masked at t, with full relative accuracy as t -> 0."""

    @abc.abstractmethod
    def alpha_prime(self, t: Array) -> Array:
        """The derivative of alpha_t, never positive."""

    @abc.abstractmethod
    def elbo_weight(self, t: Array) -> Array:
        """|alpha'_t| / (1 - alpha_t), the weight of Eq. 1; finite down to t = 1e-37 in float32."""

    def alpha(self, t: Array) -> Array:
        """The probability that a token is kept at t."""
        return 1 - self.mask_prob(t)

    def reveal_prob(self, t: Array, s: Array) -> Array:
        """(alpha_s - alpha_t) / (1 - alpha_t): the probability that a mask at t is gone at s < t; 1 where t = 0."""
        masked = self.mask_prob(t)
        return jnp.where(masked > 0, 1 - self.mask_prob(s) / jnp.where(masked > 0, masked, 1), 1.0)


def check_schedule(schedule: object) -> None:
    """InputError for what is no Schedule."""
    if not isinstance(schedule, Schedule):
        raise InputError(f"schedule must be a Schedule, such as schedules.Linear(); got {shown(schedule)}")


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """alpha_t = 1 - t."""

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
    """alpha_t = 1 - cos(π (1 - t) / 2)."""

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
    """alpha_t = 1 - t^p."""

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
