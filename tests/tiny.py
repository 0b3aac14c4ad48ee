"""A tiny training task that runs through the real loop: predict sequences that hold one digit throughout."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mdm_jax.data.pipeline import Batches
from mdm_jax.models.transformer import TransformerConfig, init_params, make_denoiser
from mdm_jax.sharding import make_mesh
from mdm_jax.training.loop import LoopConfig, fit
from mdm_jax.training.metrics import read_metrics
from mdm_jax.training.state import OptimizerConfig, TrainState
from mdm_jax.training.step import masked_loss

__all__ = ["CONFIG", "MASK", "Breaking", "CrashError", "one_device", "read_metrics", "to_batch", "train"]

MASK = 0
CONFIG = TransformerConfig(
    vocab_size=8, max_length=6, num_layers=1, num_heads=2, width=16, mlp_width=32, positions="learned", mlp="gelu"
)


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def data() -> dict[str, np.ndarray]:
    """Sequences d, d, d, d, d, d, the first of which is given."""
    tokens = np.repeat(np.arange(1, 8, dtype=np.int32)[:, None], 6, axis=1)
    return {"tokens": np.tile(tokens, (8, 1))}


def to_batch(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    is_prompt = np.zeros(raw["tokens"].shape, bool)
    is_prompt[:, 0] = True
    return {"tokens": raw["tokens"], "is_prompt": is_prompt}


def train(folder: pathlib.Path, *, steps: int, stop: int | None = None, mesh: Any = None, **options: Any) -> TrainState:
    """Trains for `steps`; `stop` breaks off after that many, as a crash would, once what was saved is on disk."""
    optimizer = OptimizerConfig(num_steps=steps, warmup_steps=2, learning_rate=1e-2, ema_decay=options.pop("ema", 0.9))
    loop = LoopConfig(batch_size=8, checkpoint_every=options.pop("checkpoint_every", 5), log_every=1)
    batches = Batches(data(), batch_size=8, seed=3)
    source = batches if stop is None else Breaking(batches, stop)
    config = options.pop("config", CONFIG)
    return fit(
        folder,
        apply=make_denoiser(config),
        init_params=lambda key: init_params(config, key),
        loss=masked_loss(MASK),
        batches=source,
        to_batch=to_batch,
        optimizer=optimizer,
        loop=loop,
        mesh=mesh or one_device(),
        **options,
    )


class CrashError(Exception):
    """Stands for whatever ends a run."""


class Breaking:
    """Batches that raise CrashError when asked for one too many."""

    def __init__(self, batches: Batches, count: int) -> None:
        self._batches, self._left = batches, count

    def __iter__(self):
        return self

    def __next__(self):
        self._left -= 1
        if self._left < 0:
            raise CrashError
        return next(self._batches)

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)
