"""What training carries from step to step, and how it is made, sharded, on any mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mdm_jax.errors import InputError
from mdm_jax.sharding import abstract, shardings
from mdm_jax.typing import Array, Params


class TrainState(NamedTuple):
    """All that a run needs to go on, but for its position in the data."""

    step: Array
    """int32 scalar: steps done, skipped ones included"""
    skipped: Array
    """int32 scalar: of those, the ones that changed nothing, since the loss or a gradient was not finite"""
    skipped_in_a_row: Array
    """int32 scalar: how many of them end the run so far"""
    params: Params
    """float32, also where the network works on a low-precision copy"""
    ema: Params | None
    """exponential moving average of the parameters, float32, or None"""
    opt_state: Any
    key: Array
    """the run's key; step k uses it folded with k, so that it never changes"""

    @property
    def best_params(self) -> Params:
        """What to evaluate and to sample with: the average where there is one."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon, with linear warm-up, cosine decay, clipping by global norm, and an average of the parameters."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon (Jordan et al. 2024) orthogonalises the updates of the matrices between layers, scaled to the size of
    AdamW's (Liu et al. 2025, arXiv:2502.16982), and leaves embeddings, the head and vectors to Adam"""
    learning_rate: float = 1e-3
    num_steps: int = 1000
    """updates in all; the learning rate ends its decay there"""
    warmup_steps: int = 100
    final_fraction: float = 0.1
    """the last learning rate, as a fraction of the highest"""
    weight_decay: float = 0.01
    """of matrices; vectors (norms, biases) are not decayed"""
    beta1: float = 0.9
    beta2: float = 0.98
    """of AdamW, as is `beta1`; Muon's momentum is 0.95"""
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    """of the average, which starts faster: min(decay, (1 + step) / (10 + step)); 0 keeps none"""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"the number of training steps must be at least 1, got {self.num_steps}")
        if self.optimizer not in ("adamw", "muon"):
            raise InputError(f"the optimizer is adamw or muon; got {self.optimizer!r}")
        if self.warmup_steps < 0:
            raise InputError(f"the number of warm-up steps must be at least 0, got {self.warmup_steps}")
        if not self.learning_rate > 0:
            raise InputError(f"the learning rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")

    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the step."""
        warmup = min(self.warmup_steps, max(self.num_steps - 1, 0))
        return optax.warmup_cosine_decay_schedule(
            init_value=self.learning_rate / (warmup + 1),
            peak_value=self.learning_rate,
            warmup_steps=warmup,
            decay_steps=self.num_steps,
            end_value=self.learning_rate * self.final_fraction,
        )

    def make(self) -> optax.GradientTransformation:
        """The optimizer."""
        schedule = self.schedule()
        if self.optimizer == "adamw":
            inner = optax.adamw(
                schedule, b1=self.beta1, b2=self.beta2, weight_decay=self.weight_decay, mask=_are_matrices
            )
        else:
            inner = optax.contrib.muon(
                schedule,
                adam_b1=self.beta1,
                adam_b2=self.beta2,
                weight_decay=self.weight_decay,
                muon_weight_dimension_numbers=_inner_matrices,
                consistent_rms=0.2,
            )
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), inner)


def _are_matrices(params: Params) -> Params:
    """Which leaves AdamW decays."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _inner_matrices(params: Params) -> Params:
    """Which leaves Muon updates: the matrices, but for embeddings and the head; None for the others."""

    def dimensions(path: tuple[Any, ...], leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_inner = leaf.ndim == 2 and "embedding" not in name and not name.startswith("head/")
        return optax.contrib.MuonDimensionNumbers() if is_inner else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def ema_update(ema: Params, params: Params, step: Array, decay: float) -> Params:
    """The average after update number `step` (from 1), in float32: a low-precision one would stand still."""
    decay_now = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: decay_now * a + (1 - decay_now) * p.astype(jnp.float32), ema, params)


def make_state(init_params: Callable[[Array], Params], key: Array, config: OptimizerConfig) -> TrainState:
    """A fresh state. `key` is consumed."""
    key_init, key_run = jax.random.split(key)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), init_params(key_init))
    ema = jax.tree.map(jnp.copy, params) if config.ema_decay else None
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, zero, params, ema, config.make().init(params), key_run)


def as_stored(params: Params, like: Params) -> Params:
    """`params` in the dtypes of `like`: what the network works on."""
    return jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), params, like)


def init_state(
    mesh: Mesh,
    init_params: Callable[[Array], Params],
    seed: int,
    config: OptimizerConfig,
    start_from: Params | None = None,
) -> TrainState:
    """A fresh state, made where it will lie on `mesh`; with the parameters of `start_from`, if that is given."""

    def make(key: Array) -> TrainState:
        return make_state(init_params, key, config)

    shapes = jax.eval_shape(make, jax.random.key(seed))
    state = jax.jit(make, out_shardings=shardings(mesh, shapes))(jax.random.key(seed))
    if start_from is None:
        return state

    def put(leaf: Array, old: Array) -> Array:
        whole = np.asarray(leaf, np.float32)
        return jax.make_array_from_callback(whole.shape, old.sharding, lambda index: whole[index])

    params = jax.tree.map(put, start_from, state.params)
    return state._replace(params=params, ema=None if state.ema is None else jax.tree.map(put, start_from, state.ema))


def abstract_state(mesh: Mesh, init_params: Callable[[Array], Params], config: OptimizerConfig) -> TrainState:
    """The shapes, dtypes and shardings of a state on `mesh`, to restore one into."""
    return abstract(mesh, jax.eval_shape(lambda key: make_state(init_params, key, config), jax.random.key(0)))
