"""`start` times a process up to its first tokens, with an empty and with a filled cache of compiled programs."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time

import jax

import mdm_jax
from experiments.common import Results, cache_compilations
from experiments.throughput.flags import Run, Start
from experiments.throughput.report import shows
from experiments.throughput.workload import workload
from mdm_jax.errors import RunError
from mdm_jax.evaluation.benchmark import busy
from mdm_jax.models.kinds import make_denoiser


def start(flags: Start) -> None:
    """Adds a row for a process with an empty cache, and one for a process with a filled cache."""
    options = dataclasses.asdict(flags) | {"batch": str(flags.batch)}
    del options["out"]
    config = Run(**options).config()  # checks the flags before a process is started
    was_busy = busy()
    results = Results("throughput", "start", out=flags.out, seed=flags.seed)
    command = [sys.executable, "-m", "experiments.throughput.start", json.dumps(options)]
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            sys.stderr.write(f"a process with the cache {cache}, in {config.dtype} ...\n")
            begin = time.perf_counter()
            environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder}
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
            if ended.returncode:
                raise RunError(f"the process that was timed ended with code {ended.returncode}")
            process_s = time.perf_counter() - begin
            measured = json.loads(ended.stdout)
            described = {**options, "dtype": config.dtype, "cache": cache}
            results.add(**described, process_s=process_s, **measured, warning=was_busy)
    results.finish(shown=shows("process_s", *measured))


def first_calls(flags: Run) -> dict[str, float]:
    """Times the first call of `sample`, and a second call with another key, temperature and number of steps.

    Also counts the programs that the first call found in the cache, and those that the second call compiled.
    """
    events: list[str] = []

    def note(event: str, **_: str | int) -> None:
        events.append(event)

    def note_duration(event: str, duration_secs: float, **_: str | int) -> None:
        events.append(event)

    jax.monitoring.register_event_listener(note)
    jax.monitoring.register_event_duration_secs_listener(note_duration)
    cache_compilations()
    work = workload(flags, int(flags.batch))
    denoiser = make_denoiser(work.config)

    def seconds(seed: int, temperature: float, num_steps: int) -> float:
        events.clear()
        begin = time.perf_counter()
        given = (denoiser, work.params, jax.random.key(seed), work.x_init)
        selector = mdm_jax.TopK(num_steps)
        jax.block_until_ready(mdm_jax.sample(*given, mask_id=work.mask_id, selector=selector, temperature=temperature))
        return time.perf_counter() - begin

    first_s, found = seconds(0, 1.0, 2), events.count("/jax/compilation_cache/cache_hits")
    other_s, compiled = seconds(1, 0.5, 3), events.count("/jax/core/compile/backend_compile_duration")
    return {"first_call_s": first_s, "programs_found": found, "other_call_s": other_s, "programs_compiled": compiled}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(first_calls(Run(**json.loads(sys.argv[1])))))
