"""How long a process takes to its first tokens: with nothing in the cache of compiled programs, and then from it."""

import json
import os
import subprocess
import sys
import tempfile
import time

from experiments.common import Results, cache_compilations
from experiments.throughput.flags import Run, Start
from mdm_jax.errors import RunError

OPTIONS = ("model", "layers", "width", "batch", "length", "dtype", "seed")


def start(flags: Start) -> None:
    """`start`."""
    results = Results("throughput", "start", out=flags.out, seed=flags.seed)
    options = {name: getattr(flags, name) for name in OPTIONS}
    command = [sys.executable, "-m", "experiments.throughput.start", json.dumps(options)]
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            sys.stderr.write(f"a process with the cache {cache} ...\n")
            begin = time.perf_counter()
            environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder}
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
            if ended.returncode:
                raise RunError(f"the process that was timed ended with code {ended.returncode}")
            process_s = time.perf_counter() - begin
            results.add(**options, cache=cache, process_s=process_s, **json.loads(ended.stdout))
    results.finish()


def first_calls(flags: Run) -> dict[str, float]:
    """Seconds of the first call of `sample`, and of one with another key, temperature and number of steps."""
    import jax

    import mdm_jax
    from experiments.throughput.workload import workload
    from mdm_jax.models.denoiser import make_denoiser

    cache_compilations()
    work = workload(flags, int(flags.batch))
    denoiser = make_denoiser(work.config, as_features=True)

    def seconds(seed: int, temperature: float, num_steps: int) -> float:
        begin = time.perf_counter()
        given = (denoiser, work.params, jax.random.key(seed), work.x_init)
        selector = mdm_jax.TopK(num_steps)
        jax.block_until_ready(mdm_jax.sample(*given, mask_id=work.mask_id, selector=selector, temperature=temperature))
        return time.perf_counter() - begin

    return {"first_call_s": seconds(0, 1.0, 2), "other_call_s": seconds(1, 0.5, 3)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(first_calls(Run(**json.loads(sys.argv[1])))))
