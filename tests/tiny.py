"""A tiny training task that runs through the real loop: predict sequences that hold one digit throughout."""

import functools
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from commands import ENV

from mdm_jax.data.pipeline import Batches
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.grouped import GroupedTransformerConfig
from mdm_jax.models.kinds import adapted, init_params, make_denoiser
from mdm_jax.sharding import local_rows, make_mesh
from mdm_jax.training import loop as training_loop
from mdm_jax.training.checkpoint import Checkpointer
from mdm_jax.training.loop import LoopConfig, fit
from mdm_jax.training.objectives import masked_loss
from mdm_jax.training.state import OptimizerConfig, TrainState, abstract_state

MASK = 0
CONFIG = TransformerConfig(
    vocab_size=8, max_length=6, num_layers=1, num_heads=2, width=16, mlp_width=32, positions="learned", mlp="gelu"
)


def grouped(config: TransformerConfig, **fields: Any) -> GroupedTransformerConfig:
    """The network with groups of tokens, and other fields."""
    return adapted(config, {"kind": "grouped_transformer", "positions": "learned", **fields})


LOSS = masked_loss(MASK)


def remembered(make):
    """`make`, called once for equal arguments, so that runs of the same network share what they trace and compile."""
    known = functools.cache(make)

    def called(*args, **options):
        try:
            hash((args, tuple(options.values())))
        except TypeError:
            return make(*args, **options)
        return known(*args, **options)

    return called


make_train_step = training_loop.make_train_step = remembered(training_loop.make_train_step)


@functools.cache
def init(config):
    """Makes the parameters of a network from a key."""
    return functools.partial(init_params, config)


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
    optimizer = options.pop("optimizer", "adamw")
    if isinstance(optimizer, str):
        optimizer = OptimizerConfig(
            optimizer,
            num_steps=steps,
            warmup_steps=min(2, steps - 1),
            learning_rate=1e-2,
            ema_decay=options.pop("ema", 0.9),
        )
    loop = LoopConfig(**{"batch_size": 8, "checkpoint_every": 5, "log_every": 1} | options.pop("loop", {}))
    mesh = mesh or one_device()
    batches = Batches(data(), batch_size=loop.batch_size, seed=3, rows=local_rows(mesh, loop.batch_size))
    source = batches if stop is None else Breaking(batches, stop)
    config = options.pop("config", CONFIG)
    task = {"task": options.pop("task")} if "task" in options else None
    usual = {
        "apply": make_denoiser(config),
        "init_params": init(config),
        "loss": LOSS,
        "batches": source,
        "to_batch": to_batch,
        "optimizer": optimizer,
        "loop": loop,
        "mesh": mesh,
        "config": task,
    }
    return fit(folder, **usual | options)


def examples() -> dict[str, np.ndarray]:
    """Held-out ones, as a batch."""
    return to_batch({"tokens": data()["tokens"][:7]})


def run(folder: pathlib.Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """Starts tests/worker.py, which trains the same task in a process of its own, with four devices."""
    root = pathlib.Path(__file__).parents[1]
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{ENV['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "JAX_COMPILATION_CACHE_DIR": ENV["JAX_COMPILATION_CACHE_DIR"],
    }
    command = [sys.executable, str(root / "tests" / "worker.py"), "train", "--out", str(folder), *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, *, code: int = 0, timeout: float = 120) -> list[str]:
    """Waits for a process; the lines that it wrote to stderr, progress bars and Gloo's greetings left out."""
    _, errors = process.communicate(timeout=timeout)
    lines = [part for line in errors.split("\n") for part in line.split("\r")]
    said = [line for line in lines if line.strip() and "step/s" not in line and "s/step" not in line]
    assert process.returncode == code, (process.returncode, said)
    return [line for line in said if "[Gloo]" not in line]


def run_two(
    folder: pathlib.Path,
    *arguments: str,
    alone: tuple[str, ...] = (),
    caches: tuple[str, str] | None = None,
) -> list[subprocess.Popen]:
    """Starts two of them, which train together over eight devices; `alone` goes to the second only.

    `caches` are folders, beside that of the run, where each keeps what it compiled, if not where all do.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    together = ("--distributed.coordinator", coordinator, "--distributed.num-processes", "2")
    together += ("--distributed.heartbeat", "10")
    ids = [("--distributed.process-id", "0"), ("--distributed.process-id", "1", *alone)]
    compiled = [{"JAX_COMPILATION_CACHE_DIR": str(folder.parent / name)} for name in caches or ()] or [{}, {}]
    return [run(folder, *arguments, *together, *own, **where) for own, where in zip(ids, compiled, strict=True)]


def final_state(folder: pathlib.Path) -> Any:
    """The newest state of a run, on one device."""
    optimizer = OptimizerConfig(num_steps=1, ema_decay=0.9)
    like = abstract_state(one_device(), lambda key: init_params(CONFIG, key), optimizer)
    with Checkpointer(folder) as checkpointer:
        restored = checkpointer.restore(like, print)
    assert restored is not None
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, restored[0]
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
