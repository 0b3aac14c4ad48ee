"""One update: a pure function, jitted once over the mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mdm_jax.checks import check_takes, gives_features, takes
from mdm_jax.errors import InputError
from mdm_jax.sharding import BATCH, RULES, Rules, gathered
from mdm_jax.training.objectives import Batch, Loss
from mdm_jax.training.state import OptimizerConfig, TrainState, abstract_state, as_stored, ema_update
from mdm_jax.typing import Array, Denoiser, Params


class Apply(Protocol):
    """A network in training: with a key its dropout is on."""

    def __call__(self, params: Params, tokens: Array, *, dropout_key: Array | None = None) -> Any:
        """Logits [B, L, V] or Features."""
        ...


def make_train_step(
    apply: Apply | Denoiser,
    init_params: Callable[[Array], Params],
    loss: Loss,
    config: OptimizerConfig,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    rules: Rules = RULES,
    merge: Callable[[Params, Params], Params] | None = None,
) -> jax.stages.Wrapped:
    """The jitted update (state, batch) -> (state, metrics); the state that goes in is donated.

    It minimises nats per free (not given) token. Draws are made for the global batch, so they depend neither on the
    number of devices nor on `accumulate`. If the loss, the gradient or the updated state is not finite, the step
    changes only the counts of steps and the draw's pool, so that the state stays finite.

    Args:
      apply: the network. Without an argument `dropout_key` it is trained without dropout.
      init_params: makes its parameters from a key, in the dtypes that the network computes with.
      loss: nats per sequence.
      config: the optimizer's settings.
      mesh: where it runs.
      accumulate: the number of parts of the batch that are computed one after the other, to save memory. Gradients are
        summed in float32. Each part has its own dropout key.
      rules: where parameters lie.
      merge: (base, trained parameters) -> those of the network, for which the update takes the base as a third
        argument: parameters on the mesh that are not trained. None trains those of the network.

    Raises:
      InputError: when traced, the batch does not split into that many parts over the mesh.
    """
    optimizer, schedule = config.make(), config.schedule()
    stored = jax.eval_shape(init_params, jax.random.key(0))
    rows = NamedSharding(mesh, BATCH)
    network = apply.features if gives_features(apply) else apply
    has_dropout = takes(network, "dropout_key")

    def objective(params: Params, base: Params, drawn: Any, dropout_key: Array) -> tuple[Array, Any]:
        params = params if merge is None else merge(base, params)

        def denoiser(params: Params, tokens: Array, **options: Any) -> Any:
            for name in options:
                check_takes(network, name)
            options |= {"dropout_key": dropout_key} if has_dropout else {}
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # kernels that XLA cannot split read the mesh here
                return network(gathered(mesh, params, rules), tokens, **options)

        rows_per_device = jax.tree.leaves(drawn)[0].shape[0] // (mesh.shape["data"] * mesh.shape["fsdp"])
        nats = loss.nll(denoiser, params, drawn, paired=rows_per_device % 2 == 0)
        nats, seen = (nats, None) if loss.init is None else nats
        return nats.sum(), seen

    def summed(params: Params, base: Params, drawn: Any, dropout_key: Array) -> tuple[Array, Params, Any]:
        """Nats of the whole batch, their gradient in float32, and what else was seen of each row."""
        if accumulate == 1:
            (value, seen), gradient = jax.value_and_grad(objective, has_aux=True)(params, base, drawn, dropout_key)
            return value, _float32(gradient), seen

        def add(total: Any, part: tuple[Any, Array]) -> tuple[Any, Any]:
            (value, seen), gradient = jax.value_and_grad(objective, has_aux=True)(params, base, *part)
            return jax.tree.map(jnp.add, total, (value, _float32(gradient))), seen

        zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), _float32(params)))
        parts = (_parts(drawn, accumulate, mesh), jax.random.split(dropout_key, accumulate))
        total, seen = jax.lax.scan(add, zeros, parts)
        return *total, _whole(seen, mesh)

    def train_step(state: TrainState, batch: Batch, base: Params = None) -> tuple[TrainState, dict[str, Array]]:
        key_draw, key_dropout = jax.random.split(jax.random.fold_in(state.key, state.step))
        pool, is_prompt = state.pool, batch["is_prompt"]
        if loss.init is None:
            drawn = loss.draw(key_draw, batch)
        else:
            key_draw, key_advance = jax.random.split(key_draw)
            drawn, pool = loss.draw(key_draw, batch, pool)
            is_prompt = pool.is_prompt
        num_tokens = jnp.maximum((~is_prompt).sum(), 1)
        drawn = jax.lax.with_sharding_constraint(drawn, rows)
        value, gradient, seen = summed(as_stored(state.params, stored), base, drawn, key_dropout)
        if loss.advance is not None:
            pool = loss.advance(key_advance, pool, seen)
        value, gradient = value / num_tokens, jax.tree.map(lambda leaf: leaf / num_tokens, gradient)
        gradient_norm = optax.tree.norm(gradient)

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        updates_done = state.step - state.skipped
        ema = None if state.ema is None else ema_update(state.ema, params, updates_done + 1, config.ema_decay)

        old, new = (state.params, state.ema, state.opt_state), (params, ema, opt_state)
        is_finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm) & _no_worse(old, new)
        params, ema, opt_state = jax.tree.map(partial(jnp.where, is_finite), new, old)
        skipped_in_a_row = jnp.where(is_finite, 0, state.skipped_in_a_row + 1)
        skipped = state.skipped + ~is_finite
        metrics = {
            "loss_per_token": value,
            "gradient_norm": gradient_norm,
            "learning_rate": jnp.asarray(schedule(updates_done)),
            "skipped_steps": skipped,
            "skipped_in_a_row": skipped_in_a_row,
        }
        return TrainState(state.step + 1, skipped, skipped_in_a_row, params, ema, opt_state, state.key, pool), metrics

    like = abstract_state(mesh, init_params, config, rules)
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    state_shardings = state_shardings._replace(pool=None if loss.init is None else rows)
    return jax.jit(
        train_step,
        in_shardings=(state_shardings, rows) if merge is None else (state_shardings, rows, None),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )


def _no_worse(old: Any, new: Any) -> Array:
    """Whether every number that is finite in `old` is finite in `new`; integers and keys always are."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    still = [jnp.all(jnp.isfinite(b) | ~jnp.isfinite(a)) for a, b in pairs if jnp.issubdtype(b.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(still))


def _float32(tree: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def _whole(seen: Any, mesh: Mesh) -> Any:
    """The inverse of `_parts`: arrays [number, B / number, ...] -> [B, ...]."""

    def join(x: Array) -> Array:
        number, size = x.shape[:2]
        together = 2 if size % 2 == 0 else 1
        dealt = x.reshape(number, size // together, together, *x.shape[2:])
        return dealt.swapaxes(0, 1).reshape(number * size, *x.shape[2:])

    return jax.lax.with_sharding_constraint(jax.tree.map(join, seen), NamedSharding(mesh, BATCH))


def _parts(drawn: Any, number: int, mesh: Mesh) -> Any:
    """Cuts arrays [B, ...] into [number, B / number, ...]. Parts take pairs of rows in turn, so that few rows move."""

    def cut(x: Array) -> Array:
        size, rest = divmod(x.shape[0], number)
        if rest:
            raise InputError(f"batch size {x.shape[0]} does not split into {number} parts; take a multiple")
        together = 2 if size % 2 == 0 else 1
        dealt = x.reshape(size // together, number, together, *x.shape[1:])
        return dealt.swapaxes(0, 1).reshape(number, size, *x.shape[1:])

    rows = NamedSharding(mesh, PartitionSpec(None, *BATCH))
    return jax.lax.with_sharding_constraint(jax.tree.map(cut, drawn), rows)
