"""The loss on held-out examples, with the same masks in every evaluation."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from mdm_jax.errors import InputError
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sharding import place
from mdm_jax.training.objectives import Batch, Loss
from mdm_jax.typing import Array, Denoiser, Params


def held_out_loss(
    denoiser: Denoiser,
    loss: Loss,
    examples: Mapping[str, np.ndarray],
    mesh: Mesh,
    *,
    batch_size: int,
    seeds: Sequence[int] = (0,),
) -> Callable[[Params], float]:
    """Makes a function from parameters on `mesh` to the loss on `examples`, in nats per free token.

    Args:
      denoiser: the network, without dropout; hashable. Equal networks with an equal loss share a compilation.
      loss: as in training.
      examples: `tokens` int32 [N, L] and `is_prompt` bool [N, L], whole in every process.
      mesh: devices to compute on.
      batch_size: examples per batch at most, rounded up to a multiple of the devices that split it.
        The last batch is padded with all-prompt rows, whose loss is 0.
      seeds: each gives a set of masks; the loss is the mean over them.

    Raises:
      InputError: there are no examples, or they are all prompt; or the loss has a pool.
    """
    if loss.init is not None:
        raise InputError("a loss with a pool cannot measure held-out examples: give objectives.masked_loss(mask_id)")
    check_number("batch_size", batch_size, Range(1, INT32), whole=True)
    num_tokens = int((~examples["is_prompt"]).sum())
    if num_tokens == 0:
        raise InputError(f"{len(examples['tokens'])} held-out examples have no token to predict; give at least one")
    num_examples, num_shards = len(examples["tokens"]), mesh.shape["data"] * mesh.shape["fsdp"]
    # Batches of equal size have little padding, which takes a part of the stratified mask counts.
    even_size = -(-num_examples // -(-num_examples // batch_size))
    batch_size = -(-even_size // num_shards) * num_shards
    padding = -num_examples % batch_size
    padded = {
        name: np.concatenate([x, np.full((padding, *x.shape[1:]), name == "is_prompt", x.dtype)])
        for name, x in examples.items()
    }

    is_paired = batch_size // num_shards % 2 == 0

    def evaluate(params: Params) -> float:
        return float(np.mean([with_masks(params, seed) for seed in seeds]))

    def with_masks(params: Params, seed: int) -> float:
        totals = []
        for start in range(0, len(padded["tokens"]), batch_size):
            batch = place(mesh, {name: x[start : start + batch_size] for name, x in padded.items()})
            key = jax.random.fold_in(jax.random.key(seed), start)
            totals.append(_nats(denoiser, loss, params, key, batch, paired=is_paired))
        return sum(map(float, jax.device_get(totals))) / num_tokens

    return evaluate


@functools.partial(jax.jit, static_argnames=("denoiser", "loss", "paired"))  # one program for runs of a study
def _nats(denoiser: Denoiser, loss: Loss, params: Params, key: Array, batch: Batch, *, paired: bool) -> Array:
    return loss.nll(denoiser, params, loss.draw(key, batch), paired=paired).sum()
