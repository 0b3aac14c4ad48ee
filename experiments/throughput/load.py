"""`load` times a Hugging Face folder on its way to the device: its tensors, and the first tokens by its model."""

import resource
import shutil
import sys
import time

import jax
import jax.numpy as jnp

import mdm_jax
from experiments.common import Results, say
from experiments.throughput.flags import Load
from experiments.throughput.report import shows
from mdm_jax.loading import export
from mdm_jax.models.kinds import init_params, make_denoiser

MEASURED = ("gigabytes", "write_s", "load_s", "gb_per_s", "peak_host_gb", "first_call_s", "tokens_per_s")


def load(flags: Load) -> None:
    """Adds one row. The weights are deleted at the end."""
    results, folder = Results("throughput", "load", out=flags.out, seed=flags.seed), flags.out / "weights"
    config = flags.config()
    say(f"{flags.model} of random weights in {flags.dtype}: writing {folder} ...")
    begin = time.perf_counter()
    try:
        mask_id = config.num_tokens - 1
        params = jax.jit(lambda key: init_params(config, key))(jax.random.key(flags.seed))
        model = mdm_jax.Model(config, params, make_denoiser(config), {"mask_token_id": mask_id})
        export(model, folder, format="huggingface")
        write_s, gigabytes = time.perf_counter() - begin, sum(path.stat().st_size for path in folder.iterdir()) / 1e9
        del model, params
        begin = time.perf_counter()
        loaded = mdm_jax.load(folder)
        jax.block_until_ready(loaded.params)
        load_s, times = time.perf_counter() - begin, []
        x_init = jnp.full((flags.batch, flags.length), mask_id)
        for seed in (0, 1):
            begin = time.perf_counter()
            found = mdm_jax.sample(
                loaded.denoiser,
                loaded.params,
                jax.random.key(flags.seed + seed),
                x_init,
                mask_id=mask_id,
                selector=mdm_jax.PerStep(2),
                block_length=flags.block_length,
            )
            jax.block_until_ready(found)
            times.append(time.perf_counter() - begin)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results.add(
        model=flags.model,
        batch=flags.batch,
        length=flags.length,
        block_length=flags.block_length,
        dtype=flags.dtype,
        gigabytes=gigabytes,
        write_s=write_s,
        load_s=load_s,
        gb_per_s=gigabytes / load_s,
        peak_host_gb=_peak_bytes() / 1e9,
        first_call_s=times[0],
        tokens_per_s=flags.batch * flags.length / times[1],
    )
    results.finish(shown=shows(*MEASURED))


def _peak_bytes() -> int:
    """The most memory that this process has held; on a CPU the weights themselves are in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
