"""`loop` times the training loop against the bare step. `memory` reports the memory that the step needs."""

import dataclasses
import functools
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.common import Results
from experiments.flags import resolve_dtype
from experiments.throughput.flags import Loop, Memory
from experiments.throughput.report import shows
from mdm_jax.errors import InputError

if TYPE_CHECKING:
    import jax
    import numpy as np

    from mdm_jax.models.config import ModelConfig, TransformerConfig

MEASURED = (
    *("step_ms", "of_the_first", "loop_ms", "overhead", "overhead_range"),
    *("examples_per_s", "tokens_per_s", "tflops"),
)
"""The fields that `loop` measures."""


class Sides(NamedTuple):
    """What is timed of one loss; each call gives the seconds of a step."""

    loss: str
    config: "ModelConfig"
    bare: Callable[[], float]
    looped: Callable[[], float]


def loop(flags: Loop) -> None:
    """Adds a row for each loss: the training loop, the bare step, and that step beside the first loss's."""
    from mdm_jax.evaluation.benchmark import busy
    from mdm_jax.sharding import make_mesh

    config, mesh = flags.config(resolve_dtype(flags.dtype)), make_mesh()
    if flags.batch % mesh.size:
        raise InputError(f"--batch must be a multiple of the {mesh.size} devices, got {flags.batch}")
    found = [_sides(flags, name, config, mesh) for name in flags.losses()]
    results, was_busy = Results("throughput", "loop", out=flags.out, seed=flags.seed), busy()
    sys.stderr.write(f"{flags.model} in {config.dtype}; the first of {flags.turns + 1} turns compiles ...\n")
    turns = [[(side.bare(), side.looped()) for side in found] for _ in range(flags.turns + 1)][1:]
    for i, side in enumerate(found):
        ratios = sorted(turn[i][1] / turn[i][0] for turn in turns)
        bare, looped = (statistics.median(turn[i][way] for turn in turns) for way in (0, 1))
        flops = side.config.forward_flops(flags.length, num_logits=flags.length)
        results.add(
            model=flags.model,
            loss=side.loss,
            batch=flags.batch,
            length=flags.length,
            dtype=config.dtype,
            step_ms=1000 * bare,
            of_the_first=statistics.median(turn[i][0] / turn[0][0] for turn in turns),
            loop_ms=1000 * looped,
            overhead=statistics.median(ratios) - 1,
            overhead_range=[ratios[0] - 1, ratios[-1] - 1],
            examples_per_s=flags.batch / looped,
            tokens_per_s=flags.batch * flags.length / looped,
            tflops=None if flops is None else 3 * flags.batch * flops / looped / 1e12,
            warning=was_busy,
        )
    results.finish(shown=shows(*MEASURED))


def _sides(flags: Loop, name: str, config: "ModelConfig", mesh: "jax.sharding.Mesh") -> Sides:
    """The step of one loss, bare and in the loop, on random tokens."""
    import jax
    import numpy as np

    from experiments.commands.losses import losses
    from mdm_jax.data.pipeline import Batches
    from mdm_jax.models.kinds import adapted, init_params, make_denoiser
    from mdm_jax.sharding import place
    from mdm_jax.training.loop import LoopConfig, fit
    from mdm_jax.training.state import OptimizerConfig, init_state
    from mdm_jax.training.step import make_train_step

    mask_id, warm_up = config.vocab_size - 1 + config.num_extra_tokens, 5
    loss, _ = losses(name, mask_id, flags.model, num_loops=getattr(config, "num_loops", None))
    if name == "quality":
        config = adapted(config, {"kind": "judged_transformer"})
    optimizer, times = OptimizerConfig(num_steps=warm_up + flags.steps), list[float]()
    tokens = np.random.default_rng(flags.seed).integers(0, config.vocab_size - 1, (64 * flags.batch, flags.length))
    apply, init = make_denoiser(config), functools.partial(init_params, config)
    bare_step = make_train_step(apply, init, loss, optimizer, mesh)

    def to_batch(raw: Mapping[str, "np.ndarray"]) -> dict[str, "np.ndarray"]:
        times.append(time.perf_counter())
        return {"tokens": raw["tokens"], "is_prompt": np.zeros(raw["tokens"].shape, bool)}

    def bare() -> float:
        batch = place(mesh, to_batch({"tokens": tokens[: flags.batch].astype(np.int32)}))
        init_pool = None if loss.init is None else functools.partial(loss.init, batch)
        state, metrics = init_state(mesh, init, flags.seed, optimizer, init_pool=init_pool), None
        for step in range(warm_up + flags.steps):
            if step == warm_up:
                jax.block_until_ready(state)
                begin = time.perf_counter()
            state, metrics = bare_step(state, batch)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - begin) / flags.steps

    def looped() -> float:
        times.clear()
        with tempfile.TemporaryDirectory() as folder:
            fit(
                pathlib.Path(folder),
                apply=apply,
                init_params=init,
                loss=loss,
                batches=Batches({"tokens": tokens.astype(np.int32)}, batch_size=flags.batch, seed=flags.seed),
                to_batch=to_batch,
                optimizer=optimizer,
                loop=LoopConfig(batch_size=flags.batch),
                mesh=mesh,
            )
        return (times[-1] - times[warm_up]) / (len(times) - 1 - warm_up)

    return Sides(name, config, bare, looped)


def memory(flags: Memory) -> None:
    """Adds a row for each form of the training step."""
    import jax

    from mdm_jax.models.config import TransformerConfig

    device = jax.devices()[0] if flags.topology is None else described_tpus(flags.topology)[0]
    is_described_and_auto = flags.topology is not None and flags.dtype == "auto"
    dtype = "bfloat16" if is_described_and_auto else resolve_dtype(flags.dtype)
    described = flags.config(dtype)
    if not isinstance(described, TransformerConfig):
        raise InputError(
            "throughput memory is for Transformers, which know `remat` and their width; name one with --model"
        )
    results = Results("throughput", "memory", out=flags.out, seed=flags.seed)
    cases = [("loss alone", False), ("step", True), ("step", False)]
    for (what, remat), as_features in itertools.product(cases, (True, False)):
        config = dataclasses.replace(described, remat=remat)
        sys.stderr.write(f"compiling: {what}, {dtype}, remat {remat}, features {as_features} ...\n")
        begin = time.perf_counter()
        lower = lowered_loss if what == "loss alone" else lowered_step
        lowered = lower(config, flags.batch, flags.length, device, as_features)
        needed = lowered.compile().memory_analysis()
        assert needed is not None, "XLA analyses memory on every backend"
        results.add(
            model=flags.model,
            batch=flags.batch,
            length=flags.length,
            dtype=dtype,
            target=device.device_kind,
            what=what,
            remat=remat,
            logits="where masked" if as_features else "everywhere",
            argument_bytes=needed.argument_size_in_bytes,
            temporary_bytes=needed.temp_size_in_bytes,
            all_logits_bytes=4 * flags.batch * flags.length * config.vocab_size,
            compile_s=round(time.perf_counter() - begin, 1),
        )
    results.finish(shown=shows("argument_bytes", "temporary_bytes", "compile_s"))


def lowered_step(
    config: "TransformerConfig", batch: int, length: int, device: "jax.Device", as_features: bool
) -> "jax.stages.Lowered":
    """The training step, on one device."""
    import jax

    from mdm_jax.models.kinds import init_params, make_denoiser
    from mdm_jax.sharding import make_mesh
    from mdm_jax.training.objectives import masked_loss
    from mdm_jax.training.state import OptimizerConfig, abstract_state
    from mdm_jax.training.step import make_train_step

    init, mesh = functools.partial(init_params, config), make_mesh(devices=[device])
    network = make_denoiser(config)
    apply = network if as_features else lambda params, tokens, **options: network(params, tokens, **options)
    step = make_train_step(apply, init, masked_loss(config.vocab_size), OptimizerConfig(), mesh)
    tokens, is_prompt = (jax.ShapeDtypeStruct((batch, length), dtype) for dtype in ("int32", "bool"))
    return step.lower(abstract_state(mesh, init, OptimizerConfig()), {"tokens": tokens, "is_prompt": is_prompt})


def lowered_loss(
    config: "TransformerConfig", batch: int, length: int, device: "jax.Device", as_features: bool
) -> "jax.stages.Lowered":
    """The loss and its gradients for the network's last hidden states and the head, on one device."""
    import jax
    from jax.sharding import SingleDeviceSharding

    import mdm_jax
    from mdm_jax.kernels.matmul import linear

    def loss(features: mdm_jax.Features, key: jax.Array, x_0: jax.Array) -> jax.Array:
        def network(features: mdm_jax.Features, tokens: jax.Array) -> Any:
            return features if as_features else linear(*features, config.dtype)

        return mdm_jax.subset_loss(network, features, key, x_0, mask_id=config.vocab_size).sum()

    def shape(*sizes: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=SingleDeviceSharding(device))

    hidden = shape(batch, length, config.width, dtype=config.dtype)
    head = shape(config.width, config.vocab_size, dtype=config.param_dtype)
    key = shape(dtype=jax.random.key(0).dtype)
    return jax.jit(jax.value_and_grad(loss)).lower(
        mdm_jax.Features(hidden, head), key, shape(batch, length, dtype="int32")
    )


def described_tpus(topology: str) -> "list[jax.Device]":
    """The chips of a TPU slice to compile for. The machine needs no TPU."""
    import jax
    from jax.experimental import topologies

    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost")):
        os.environ.setdefault(name, value)  # otherwise libtpu asks for the metadata of its machine
    try:
        devices = list(topologies.get_topology_desc(topology_name=topology, platform="tpu").devices)
    except Exception as error:  # the plugin may raise anything
        raise InputError(f"no such TPU slice, or no libtpu (pip install libtpu): {topology}: {error}") from None
    jax.config.update("jax_enable_compilation_cache", False)  # cached programs cannot be read without the chip
    return devices
