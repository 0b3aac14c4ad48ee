"""`programs` compiles what a model is used for, and says what each program needs and what it is made of."""

import collections
import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

import mdm_jax
from experiments.common import Results
from experiments.flags import resolve_dtype
from experiments.throughput.flags import Programs
from experiments.throughput.report import shows
from experiments.throughput.shards import lowered_sampler
from experiments.throughput.training import described_tpus, lowered_step
from mdm_jax.errors import InputError
from mdm_jax.kernels.skip_rows import SkipRows
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.kinds import make_decoder, make_denoiser
from mdm_jax.progress import Bar
from mdm_jax.sharding import make_mesh

SLOW = ("scatter", "gather", "dynamic_slice", "dynamic_update_slice", "sort", "case", "while")
"""The operations that are counted: an accelerator is slow at them, or waits for the host."""
SELECTORS = {
    "PerStep(1)": mdm_jax.PerStep(1),
    "TopK(16)": mdm_jax.TopK(16),
    "Binomial(16)": mdm_jax.Binomial(16),
    "Threshold(0.9)": mdm_jax.Threshold(0.9),
    "EntropyBudget(1)": mdm_jax.EntropyBudget(1.0),
    "Klass()": mdm_jax.Klass(),
}

Lower = Callable[[], jax.stages.Lowered]


def programs(flags: Programs) -> None:
    """Adds a row for each program."""
    device = jax.devices()[0] if flags.topology is None else described_tpus(flags.topology)[0]
    is_described_and_auto = flags.topology is not None and flags.dtype == "auto"
    config = flags.config("bfloat16" if is_described_and_auto else resolve_dtype(flags.dtype))
    if not isinstance(config, TransformerConfig):
        raise InputError("throughput programs is for Transformers: name one with --model")
    results = Results("throughput", "programs", out=flags.out, seed=flags.seed)
    for name, lower in Bar(list(of_model(config, flags, device)), unit="program"):
        begin = time.perf_counter()
        program = lower()
        needed, counts = program.compile().memory_analysis(), operations(program.as_text())
        results.add(
            model=flags.model,
            batch=flags.batch,
            length=flags.length,
            dtype=config.dtype,
            target=device.device_kind,
            what=name,
            argument_bytes=needed.argument_size_in_bytes,
            temporary_bytes=needed.temp_size_in_bytes,
            operations={operation: counts[operation] for operation in SLOW if operation in counts},
            compile_s=round(time.perf_counter() - begin, 1),
        )
    results.finish(shown=shows("temporary_bytes", "operations", "compile_s"))


def of_model(config: TransformerConfig, flags: Programs, device: jax.Device) -> Iterator[tuple[str, Lower]]:
    """What the model is used for: a name, and what lowers it."""
    mesh, denoiser = make_mesh(devices=[device]), make_denoiser(config)
    yield "training step", lambda: lowered_step(config, flags.batch, flags.length, device, True)

    def of(sampler: Callable[..., Any], network: Any = denoiser, **options: Any) -> Lower:
        decode = functools.partial(sampler, network, **options)
        return functools.partial(lowered_sampler, decode, config, flags.batch, flags.length, mesh)

    for name, selector in SELECTORS.items():
        yield f"sample, {name}", of(mdm_jax.sample, selector=selector)
    in_blocks: dict[str, Any] = {"block_length": flags.block_length, "selector": mdm_jax.PerStep(2)}
    yield "sample, rows left out", of(mdm_jax.sample, SkipRows(denoiser))
    yield "sample, blocks", of(mdm_jax.sample, **in_blocks)
    yield "cached_sample, blocks", of(mdm_jax.cached_sample, make_decoder(config), **in_blocks)
    yield "remasking_sample", of(mdm_jax.remasking_sample, num_steps=16)
    yield "correcting_sample, leave-one-out", of(mdm_jax.correcting_sample, k=4)
    yield "search_sample, width 4", of(mdm_jax.search_sample, width=4)


def operations(text: str) -> dict[str, int]:
    """How often each operation stands in a program before XLA compiles it, by its text in StableHLO.

    So the counts are the same for all devices. The text of what libtpu compiled cannot always be read back.
    """
    return collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
