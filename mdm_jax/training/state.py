"""The state of training, its optimizer, and how the state is made on a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from optax import GradientTransformation as Transformation

from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import INT32, Count, Decay, NotNegative, Positive, Range, Share, check_ranges
from mdm_jax.sharding import BATCH, RULES, Rules, abstract, shardings
from mdm_jax.typing import Array, Params

GENERATOR = "threefry2x32"
"""Of a run's draws, whatever JAX's default is: those of the "rbg" generators depend on the mesh."""


class TrainState(NamedTuple):
    """All that a run needs to go on, except its position in the data."""

    step: Array
    """int32 scalar: steps done, skipped ones included"""
    skipped: Array
    """int32 scalar: updates that were skipped because the loss, the gradient or the update was not finite"""
    skipped_in_a_row: Array
    """int32 scalar: the length of the current streak of skipped updates"""
    params: Params
    """float32, also where the network works on a low-precision copy"""
    ema: Params | None
    """exponential moving average of the parameters, float32, or None"""
    opt_state: Any
    key: Array
    """the run's key, which never changes: step k folds k into it"""
    pool: Any = None
    """the state of a draw that has one, arrays [B, ...] split as a batch is; None for other draws"""

    @property
    def eval_params(self) -> Params:
        """The parameters to evaluate and to sample with: the average if there is one."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, Muon or another, with linear warm-up, cosine decay, clipping by global norm, and an average of parameters.

    Matrices are decayed, embeddings and the head among them; vectors (norms, biases) are not.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon (Jordan et al. 2024) orthogonalises the updates of the matrices between layers, scaled to the size of
    AdamW's (Liu et al. 2025, arXiv:2502.16982), and leaves embeddings, the head and vectors to AdamW"""
    learning_rate: Positive = 1e-3
    """the highest"""
    num_steps: Count = 1000
    """updates in all; the learning rate ends its decay at the last"""
    warmup_steps: Annotated[int, Range(0, INT32)] | None = None
    """fewer than `num_steps`; None: 200, or a tenth of the run if that is less"""
    final_fraction: Share = 0.1
    """the learning rate of the last update, as a fraction of the highest"""
    weight_decay: NotNegative = 0.01
    """of matrices, multiplied by the learning rate"""
    beta1: Decay = 0.9
    beta2: Decay = 0.98
    """of AdamW, as is `beta1`; Muon's momentum is 0.95"""
    clip_norm: Positive = 1.0
    """gradients longer than this are scaled down to it"""
    ema_decay: Decay = 0.999
    """of the average, which starts faster: min(decay, (1 + step) / (10 + step)); 0 keeps none"""
    transformation: optax.GradientTransformation | Callable[[optax.Schedule], optax.GradientTransformation] | None = (
        None
    )
    """replaces `optimizer`: a transformation of optax, or a function schedule -> transformation (`optax.lion`)"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.optimizer not in ("adamw", "muon"):
            raise InputError(f"the optimizer is adamw or muon; got {shown(self.optimizer)}")
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(200, self.num_steps // 10))
        elif self.warmup_steps >= self.num_steps:
            raise InputError(
                f"the number of warm-up steps, {self.warmup_steps}, must be below that of all steps, {self.num_steps}"
            )

    def to_json(self) -> dict[str, Any]:
        """The settings, for a run's `config.json`. A transformation has no settings to compare: its name is written."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own = fields.pop("transformation")
        name = f"{getattr(own, '__module__', '')}.{getattr(own, '__qualname__', type(own).__qualname__)}"
        return fields if own is None else fields | {"transformation": name}

    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the updates done."""
        warmup, peak = self.warmup_steps or 0, self.learning_rate
        to_decay = self.num_steps - 1 - warmup
        if to_decay:
            decay = optax.cosine_decay_schedule(peak, to_decay, self.final_fraction)
        else:
            decay = optax.constant_schedule(peak * self.final_fraction)
        if not warmup:
            return decay
        return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), decay], [warmup])

    def make(self) -> Transformation:
        """The optimizer."""
        inner, schedule = self.transformation, self.schedule()
        if inner is None:
            inner = self._adamw if self.optimizer == "adamw" else self._muon
        if not isinstance(inner, Transformation):
            inner = inner(schedule)
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), inner)

    def _adamw(self, schedule: optax.Schedule) -> Transformation:
        return optax.adamw(schedule, self.beta1, self.beta2, weight_decay=self.weight_decay, mask=_are_matrices)

    def _muon(self, schedule: optax.Schedule) -> Transformation:
        """Muon and AdamW apart: the Adam within optax's Muon does not decay matrices, and has Nesterov's momentum."""
        muon = optax.contrib.muon(schedule, weight_decay=self.weight_decay, consistent_rms=0.2)
        return optax.partition({"muon": muon, "adamw": self._adamw(schedule)}, _parts)


def _are_matrices(params: Params) -> Params:
    """Which leaves are decayed."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _parts(params: Params) -> Params:
    """The optimizer of each leaf: "muon" for matrices except embeddings and the head, "adamw" for the others."""

    def part(path: tuple[Any, ...], leaf: Array) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_inner = leaf.ndim == 2 and "embedding" not in name and not name.startswith("head/")
        return "muon" if is_inner else "adamw"

    return jax.tree_util.tree_map_with_path(part, params)


def ema_update(ema: Params, params: Params, step: Array, decay: float) -> Params:
    """The average after update number `step` (from 1), in float32: in low precision it would stop moving."""
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
    """`params` in the dtypes of `like`, which the network computes with."""
    return jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), params, like)


def init_state(
    mesh: Mesh,
    init_params: Callable[[Array], Params],
    seed: int,
    config: OptimizerConfig,
    start_from: Params | None = None,
    rules: Rules = RULES,
    init_pool: Callable[[], Any] | None = None,
) -> TrainState:
    """A fresh state, made where it will lie on `mesh`.

    Args:
      mesh: where to train.
      init_params: makes fresh parameters from a key.
      seed: of the run.
      config: the optimizer's settings.
      start_from: parameters to start from instead; None for fresh ones.
      rules: where parameters lie, by their names.
      init_pool: makes the state of the loss's draw; None if it has none.
    """
    given = None if start_from is None else placed(mesh, start_from, rules)

    def make(key: Array, given: Params | None) -> TrainState:
        return make_state(init_params if given is None else lambda _: given, key, config)

    key = jax.random.key(seed, impl=GENERATOR)
    targets = shardings(mesh, jax.eval_shape(make, key, given), rules)
    state = jax.jit(make, out_shardings=targets)(key, given)
    if init_pool is None:
        return state
    return state._replace(pool=jax.jit(init_pool, out_shardings=NamedSharding(mesh, BATCH))())


def placed(mesh: Mesh, params: Params, rules: Rules = RULES) -> Params:
    """Parameters where they belong on `mesh`: as they are, if they lie on it already, else whole in every process."""

    def put(leaf: Array, target: NamedSharding) -> Array:
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh == mesh:
            return leaf
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, target, lambda index: whole[index])

    return jax.tree.map(put, params, shardings(mesh, params, rules))


def abstract_state(
    mesh: Mesh,
    init_params: Callable[[Array], Params],
    config: OptimizerConfig,
    rules: Rules = RULES,
    init_pool: Callable[[], Any] | None = None,
) -> TrainState:
    """The shapes, dtypes and shardings of a state on `mesh`, to restore one into."""
    key = jax.random.key(0, impl=GENERATOR)
    state: TrainState = abstract(mesh, jax.eval_shape(lambda key: make_state(init_params, key, config), key), rules)
    if init_pool is None:
        return state
    rows = NamedSharding(mesh, BATCH)
    pool = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), jax.eval_shape(init_pool))
    return state._replace(pool=pool)
