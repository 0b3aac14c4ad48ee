"""`run` times sampling per oracle, in alternating turns with the bare network, which makes all logits."""

import functools
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.common import Results, Row, say_written
from experiments.throughput import report, roofline
from experiments.throughput.flags import Run
from experiments.throughput.workload import Workload, cases, described, workload
from mdm_jax.errors import InputError
from mdm_jax.evaluation.benchmark import Bench, Case, busy
from mdm_jax.progress import Bar


def run(flags: Run) -> None:
    """Adds a row for each batch size and case, and rows of the peers."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile_s is the time without a cache
    if flags.compare is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
    if flags.keep is not None and "all" in (flags.logits, flags.compute):
        raise InputError("--keep computes what a block needs: leave --logits all and --compute all out")
    was_busy, to_time, batches = busy(), cases(flags), flags.numbers("batch")
    works = [workload(flags, batch) for batch in batches]  # checks everything before it times anything
    if flags.compare == "torch":
        from experiments.throughput import torch_peer

        torch_peer.check(works[0], to_time)
    results = Results("throughput", "run", out=flags.out, seed=flags.seed)
    config, length = works[0].config, works[0].x_init.shape[1]
    say(f"{described(flags)} in {config.dtype}, {length} tokens; each case compiles first")
    roof = roofline.measure(config.dtype)
    head = {
        "model": described(flags),
        "length": length,
        "prompt": flags.prompt,
        "block_length": flags.block_length,
        "keep": flags.keep,
        "logits": flags.logits,
        "compute": flags.compute,
        "dtype": config.dtype,
    }
    bar = Bar(total=len(works) * len(to_time), unit="case")
    for batch, work in zip(batches, works, strict=True):
        for row in rows_of(work, to_time, roof, bar):
            warning = "; ".join(filter(None, [was_busy, row.pop("warning", None)])) or None
            results.add(**{**head, "batch": batch, **row, "warning": warning})
            (flags.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results.rows))
    bar.close()
    results.finish(shown=report.shows(*report.ON_TERMINAL, what=(*head, *report.WHAT)))
    (flags.out / "table.md").write_text(report.markdown(results.rows))
    report.plot(flags.out / "overhead.png", results.rows, described(flags))
    say_written(flags.out / "table.md", flags.out / "overhead.png")


def say(text: str) -> None:
    """Writes one line of progress."""
    sys.stderr.write(f"{text}\n")


def rows_of(work: Workload, to_time: Sequence[Case], roof: roofline.Roofline, bar: Any) -> Iterator[Row]:
    """Times every case, and yields our row and those of the peers."""
    bench, peers = work.bench(), None
    if work.flags.compare == "torch":
        from experiments.throughput import torch_peer

        slow = work.config.dtype == "bfloat16" and torch_peer.is_slow_in_bfloat16()
        say("PyTorch compiles too, which takes " + ("up to ten minutes in bfloat16 on this CPU" if slow else "a while"))
        peers = torch_peer.Peers(work, work.flags.seed)
    for case in to_time:
        bar.set_description(f"{case.oracle_name} {case.selector_name} temperature {case.temperature:g}")
        checked: Row = {} if peers is None else peers.checks(case)
        timed = bench.time(case, None if peers is None else functools.partial(peers.works, case))
        yield bench.row(case, timed) | network_row(work, timed.nfe, timed.seconds["network"], roof)
        fields = {"oracle": case.oracle_name, "selector": case.selector_name, "temperature": case.temperature}
        for peer in [name for name in timed.seconds if name.startswith("torch")]:
            ours = timed.seconds["network" if peer == "torch network" else "ours"]
            yield fields | {"peer": peer} | peer_row(bench, timed.nfe, timed.seconds[peer], ours) | checked
        bar.update()


def network_row(work: Workload, nfe: int, seconds: Sequence[float], roof: roofline.Roofline) -> Row:
    """The fields about the bare network: its speed, and its share of the roofline. None where its FLOPs are unknown."""
    network_s = statistics.median(seconds) / nfe
    batch, length = work.x_init.shape
    flops_of_one = work.config.forward_flops(length, num_logits=length)
    if flops_of_one is None:
        return {}
    flops, is_tied = batch * flops_of_one, getattr(work.config, "tie_head", False)
    read = {name: leaf for name, leaf in work.params.items() if name != "token_embedding" or is_tied}
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(read))  # an embedding is read in a few rows only
    share = roof.seconds(flops, weights + 4 * batch * length * work.config.vocab_size) / network_s
    row: Row = {
        "network_tflops": flops / network_s / 1e12,
        "roofline_tflops": roof.flops / 1e12,
        "roofline_gb_per_s": roof.bytes / 1e9,
        "roofline_share": share,
    }
    if share > 1:
        row["warning"] = "roofline_share above 1: the machine was slower while its roofline was measured"
    return row


def peer_row(bench: Bench, nfe: int, theirs: Sequence[float], ours: Sequence[float]) -> Row:
    """The fields about another implementation; `ours_is_faster` is the median ratio over turns, with its range."""
    ratios = sorted(one / other for one, other in zip(theirs, ours, strict=True))
    return {
        **bench.rates(nfe, theirs),
        "ours_is_faster": statistics.median(ratios),
        "ours_is_faster_range": [ratios[0], ratios[-1]],
    }
