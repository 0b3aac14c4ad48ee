"""One update: a pure function, jitted once over the mesh."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from mdm_jax.losses import subset_loss
from mdm_jax.sharding import BATCH, shardings
from mdm_jax.training.state import OptimizerConfig, TrainState, ema_update
from mdm_jax.typing import Array, Denoiser, Params

Batch = dict[str, Array]
"""`tokens` int32 [B, L] and `is_prompt` bool [B, L]: the positions that are given."""

Loss = Callable[[Denoiser, Params, Array, Batch], Array]
"""(denoiser, params, key, batch) -> nats per sequence, float32 [B]."""


class Apply(Protocol):
    """A network in training: with a key its dropout is on."""

    def __call__(self, params: Params, tokens: Array, *, dropout_key: Array | None = None) -> Any:
        """Logits [B, L, V] or Features."""
        ...


def masked_loss(mask_id: int) -> Loss:
    """The loss that training uses: `subset_loss`, which has the lowest variance."""

    def loss(denoiser: Denoiser, params: Params, key: Array, batch: Batch) -> Array:
        return subset_loss(denoiser, params, key, batch["tokens"], mask_id=mask_id, is_prompt=batch["is_prompt"])

    return loss


def make_train_step(
    apply: Apply, loss: Loss, config: OptimizerConfig, mesh: Mesh, state: TrainState
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The jitted update (state, batch) -> (state, metrics); the state that goes in is donated.

    It minimises nats per free (not given) token. Draws are made for the global batch, so that they do not depend on how
    many devices share it.

    Args:
      apply: the network.
      loss: nats per sequence.
      config: the optimizer's settings.
      mesh: where it runs.
      state: a state, or its shapes, which tells how the state is sharded.
    """
    optimizer = config.make()
    schedule = config.schedule()

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key_loss, key_dropout = jax.random.split(jax.random.fold_in(state.key, state.step))
        num_tokens = jnp.maximum((~batch["is_prompt"]).sum(), 1)

        def objective(params: Params) -> Array:
            def denoiser(params: Params, tokens: Array) -> Any:
                return apply(params, tokens, dropout_key=key_dropout)

            return loss(denoiser, params, key_loss, batch).sum() / num_tokens

        value, gradient = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        ema = None if state.ema is None else ema_update(state.ema, params, step, config.ema_decay)
        metrics = {
            "loss_per_token": value,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step)),
        }
        return TrainState(step, params, ema, opt_state, state.key), metrics

    state_shardings = shardings(mesh, state)
    return jax.jit(
        train_step,
        in_shardings=(state_shardings, NamedSharding(mesh, BATCH)),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
