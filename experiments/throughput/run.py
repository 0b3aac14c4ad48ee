"""Sampling per oracle, timed in turns with the bare network, which makes the logits of all positions and no more."""

import functools
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from tqdm import tqdm

import mdm_jax
from experiments.common import Results, Row
from experiments.throughput import roofline
from experiments.throughput.flags import Run
from experiments.throughput.workload import ORACLES, Case, Workload, batches_of, cases_of, described, workload
from mdm_jax import confidence
from mdm_jax.models.decoder import make_decoder
from mdm_jax.models.denoiser import make_denoiser
from mdm_jax.report import plots
from mdm_jax.typing import Array, Params

WHAT = ("batch", "peer", "oracle", "selector", "temperature")
MEASURED = ("nfe", "ms_per_nfe", "ms_per_nfe_range", "network_ms", "overhead", "sequences_per_s", "tokens_per_s")
OF_OURS = ("network_tflops", "roofline_share", "peak_bytes", "compile_s")
COLUMNS = (*WHAT, *MEASURED, *OF_OURS)
"""Of the Markdown table."""


def run(flags: Run) -> None:
    """`run`."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile_s is that of a first start
    if flags.compare is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other one needs memory too
    cases, batches = list(cases_of(flags)), batches_of(flags)
    works = [workload(flags, batch) for batch in batches]  # all that can be wrong, before anything is timed
    results = Results("throughput", "run", out=flags.out, seed=flags.seed)
    roof = roofline.measure(flags.dtype)
    head = {
        "model": described(flags),
        "length": works[0].x_init.shape[1],
        "prompt": flags.prompt,
        "block_length": flags.block_length,
        "keep": flags.keep,
        "logits": flags.logits,
        "compute": flags.compute,
        "dtype": flags.dtype,
    }
    bar = tqdm(total=len(works) * len(cases), unit="case", dynamic_ncols=True)
    for batch, work in zip(batches, works, strict=True):
        for row in rows_of(work, cases, roof, bar):
            results.add(**{**head, "batch": batch, **row})
            (flags.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results.rows))
    results.finish()
    (flags.out / "table.md").write_text(markdown(results.rows))
    plot(flags.out / "overhead.png", results.rows, described(flags))
    sys.stdout.write(f"{flags.out / 'table.md'}\n{flags.out / 'overhead.png'}\n")


def rows_of(work: Workload, cases: Sequence[Case], roof: roofline.Roofline, bar: Any) -> Iterator[Row]:
    """Times every case; one row of ours for each, and those of the peers."""
    flags, key = work.flags, jax.random.key(work.flags.seed)
    network, peers = jax.jit(functools.partial(network_calls, make_denoiser(work.config))), None
    if flags.compare == "torch":
        from experiments.throughput import torch_peer

        peers = torch_peer.Peers(work, flags.seed)
    for case in cases:
        bar.set_description(f"{case.oracle} {case.selector_name} temperature {case.temperature:g}")
        begin = time.perf_counter()
        with mock.patch.object(confidence, "WHOLE", sys.maxsize if flags.logits == "all" else confidence.WHOLE):
            lowered = jax.jit(functools.partial(sampled, work, case)).lower(work.params, key, work.x_init)
        compiled = lowered.compile()
        compile_s = time.perf_counter() - begin
        ours = functools.partial(compiled, work.params, key, work.x_init)
        nfe = int(ours().nfe)
        bare = functools.partial(network, work.params, work.x_init, nfe)
        timed: dict[str, Callable[[], Any]] = {"network": bare, "ours": ours}
        checked: Row = {}
        if peers is not None:
            checked = peers.checks(case)
            timed |= {**peers.samplers(case), "torch network": functools.partial(peers.network, nfe)}
        times = in_turns(timed, flags.turns)
        fields = {"oracle": case.oracle, "selector": case.selector_name, "temperature": case.temperature}
        needs = {"peak_bytes": peak_bytes(compiled.memory_analysis()), "compile_s": round(compile_s, 2)}
        yield fields | row_of(work, nfe, times["ours"], times["network"], roof) | needs
        for peer in [name for name in timed if name.startswith("torch")]:
            ours_s = times["network" if peer == "torch network" else "ours"]
            yield fields | {"peer": peer} | peer_row(work, nfe, times[peer], ours_s) | checked
        bar.update()


def network_calls(denoiser: mdm_jax.Denoiser, params: Params, tokens: Array, count: Array) -> Array:
    """`count` calls of the bare network, one after the other, all logits made in each."""

    def call(_: Array, tokens: Array) -> Array:
        logits = jax.lax.optimization_barrier(denoiser(params, tokens))
        return tokens + (logits[0, 0, 0] > jnp.inf).astype(tokens.dtype)  # adds 0, but the next call has to wait

    return jax.lax.fori_loop(0, count, call, tokens)


def sampled(work: Workload, case: Case, params: Params, key: Array, x_init: Array) -> mdm_jax.SampleResult:
    """What is timed."""
    options: dict[str, Any] = {"mask_id": work.mask_id, "oracle": ORACLES[case.oracle], "selector": case.selector}
    options |= {"temperature": case.temperature, "block_length": work.flags.block_length}
    if work.flags.keep is not None:
        return mdm_jax.cached_sample(make_decoder(work.config), params, key, x_init, keep=work.flags.keep, **options)
    network = make_denoiser(work.config, as_features=work.flags.logits == "open")
    denoiser = network if work.flags.compute == "open" else lambda params, tokens: network(params, tokens)
    return mdm_jax.sample(denoiser, params, key, x_init, **options)


def in_turns(works: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, after a turn that warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            took = roofline.seconds(work)
            if turn:
                times[name].append(took)
    return times


def row_of(work: Workload, nfe: int, ours: list[float], network: list[float], roof: roofline.Roofline) -> Row:
    """What the times of a case say."""
    ratios = sorted(one / other - 1 for one, other in zip(ours, network, strict=True))
    seconds, network_s = statistics.median(ours), statistics.median(network) / nfe
    batch, length = work.x_init.shape
    flops = batch * work.config.forward_flops(length, num_logits=length)
    read = {name: leaf for name, leaf in work.params.items() if name != "token_embedding" or work.config.tie_head}
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(read))  # of an embedding only the rows of a few tokens are
    least = roof.seconds(flops, weights + 4 * batch * length * work.config.vocab_size)
    return {
        "nfe": nfe,
        "ms_per_nfe": 1000 * seconds / nfe,
        "ms_per_nfe_range": [1000 * min(ours) / nfe, 1000 * max(ours) / nfe],
        "network_ms": 1000 * network_s,
        "overhead": statistics.median(ratios),
        "overhead_range": [ratios[0], ratios[-1]],
        "sequences_per_s": batch / seconds,
        "tokens_per_s": work.num_generated / seconds,
        "network_tflops": flops / network_s / 1e12,
        "roofline_tflops": roof.flops / 1e12,
        "roofline_gb_per_s": roof.bytes / 1e9,
        "roofline_share": least / network_s,
    }


def peer_row(work: Workload, nfe: int, theirs: list[float], ours: list[float]) -> Row:
    """What the times of another implementation say; `ours_is_faster` is the median over turns, with its range."""
    ratios = sorted(one / other for one, other in zip(theirs, ours, strict=True))
    seconds = statistics.median(theirs)
    return {
        "nfe": nfe,
        "ms_per_nfe": 1000 * seconds / nfe,
        "ms_per_nfe_range": [1000 * min(theirs) / nfe, 1000 * max(theirs) / nfe],
        "sequences_per_s": work.x_init.shape[0] / seconds,
        "tokens_per_s": work.num_generated / seconds,
        "ours_is_faster": statistics.median(ratios),
        "ours_is_faster_range": [ratios[0], ratios[-1]],
    }


def peak_bytes(needed: Any) -> int | None:
    """Arguments, results and temporary arrays of a compiled program."""
    if needed is None:
        return None
    return int(
        needed.argument_size_in_bytes
        + needed.output_size_in_bytes
        + needed.temp_size_in_bytes
        - needed.alias_size_in_bytes
    )


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""

    def cell(row: Row, name: str) -> str:
        value = row.get(name)
        if value is None:
            return "-" if name != "peer" else "mdm_jax"
        if name == "overhead":
            return f"{100 * value:+.1f}%"
        if isinstance(value, list):
            return " to ".join(f"{bound:.4g}" for bound in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell(row, name) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(path: pathlib.Path, rows: list[Row], model: str) -> None:
    """What each oracle adds to the network, a bar per temperature."""
    alike = ("batch", "selector")
    ours = [row for row in rows if "overhead" in row and all(row[name] == rows[0][name] for name in alike)]
    series = {}
    for temperature in dict.fromkeys(row["temperature"] for row in ours):
        these = [row for row in ours if row["temperature"] == temperature]
        series[f"{temperature:g}"] = ([row["oracle"] for row in these], [row["overhead"] for row in these])
    title = f"{model}: what choosing the order and the tokens costs"
    plots.bars(
        path, series, y_label="added to the network's time (%)", title=title, legend="temperature", is_share=False
    )
