"""`shards` compiles the sampler for several numbers of devices, and reports the memory that each device needs."""

import functools
import itertools
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import mdm_jax
from experiments.common import Results
from experiments.flags import resolve_dtype
from experiments.throughput.flags import LISTED, Shards
from experiments.throughput.report import shows
from experiments.throughput.training import described_tpus
from mdm_jax.errors import InputError
from mdm_jax.kernels.skip_rows import SkipRows
from mdm_jax.models.config import ModelConfig
from mdm_jax.models.kinds import make_denoiser, param_shapes
from mdm_jax.sharding import BATCH, abstract, make_mesh
from mdm_jax.typing import Params


def shards(flags: Shards) -> None:
    """Adds a row for each number of devices; nothing is run."""
    devices = jax.devices() if flags.topology is None else described_tpus(flags.topology)
    counts = LISTED.read("--devices", flags.devices)
    if max(counts) > len(devices):
        raise InputError(
            f"--devices asks for {max(counts)} devices, and there are {len(devices)}; --topology describes TPUs, "
            "and XLA_FLAGS=--xla_force_host_platform_device_count=8 pretends 8 devices on a CPU"
        )
    dtype = "bfloat16" if flags.topology is not None and flags.dtype == "auto" else resolve_dtype(flags.dtype)
    config = flags.config(dtype)
    results = Results("throughput", "shards", out=flags.out, seed=flags.seed)
    for count, axis in itertools.product(counts, ("tensor", "fsdp")):
        if count == 1 and axis == "fsdp":
            continue  # as along the other axis
        sys.stderr.write(f"compiling: {count} devices along {axis}, {dtype} ...\n")
        begin = time.perf_counter()
        needed = lowered(config, flags, axis, devices[:count]).compile().memory_analysis()
        assert needed is not None, "XLA analyses memory on every backend"
        results.add(
            model=flags.model,
            batch=flags.batch,
            length=flags.length,
            dtype=dtype,
            target=devices[0].device_kind,
            devices=count,
            axis=axis,
            argument_bytes=needed.argument_size_in_bytes,
            temporary_bytes=needed.temp_size_in_bytes,
            compile_s=round(time.perf_counter() - begin, 1),
        )
    results.finish(shown=shows("argument_bytes", "temporary_bytes", "compile_s"))


def lowered(config: ModelConfig, flags: Shards, axis: str, devices: list[jax.Device]) -> jax.stages.Lowered:
    """The sampler by margin, with the parameters split along one axis of the mesh."""
    mesh = make_mesh(1, devices=devices, **{axis: len(devices)})
    denoiser = SkipRows(make_denoiser(config))
    return lowered_sampler(functools.partial(mdm_jax.sample, denoiser), config, flags.batch, flags.length, mesh)


def lowered_sampler(
    sampler: Callable[..., mdm_jax.SampleResult], config: ModelConfig, batch: int, length: int, mesh: Mesh
) -> jax.stages.Lowered:
    """A sampler of (params, key, x_init), for a batch of masks, with the parameters on the mesh."""

    def from_data(params: Params, key_data: jax.Array, x_init: jax.Array) -> mdm_jax.SampleResult:
        return sampler(params, jax.random.wrap_key_data(key_data), x_init, mask_id=config.num_tokens - 1)

    params = abstract(mesh, param_shapes(config))
    shape = np.shape(jax.random.key_data(jax.random.key(0)))
    key_data = jax.ShapeDtypeStruct(shape, jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    rows = BATCH if batch % mesh.shape["fsdp"] == 0 else PartitionSpec()
    x_init = jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=NamedSharding(mesh, rows))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # a TPU's attention kernel reads it
        return jax.jit(from_data).lower(params, key_data, x_init)
