"""Measures the overhead of sampling over the bare network, in alternating turns, for any denoiser."""

import contextlib
import dataclasses
import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mdm_jax.checks import call, check_mask_id, check_tokens
from mdm_jax.confidence import is_greedy
from mdm_jax.errors import InputError, shown
from mdm_jax.kernels.matmul import linear
from mdm_jax.oracles import ORACLES
from mdm_jax.ranges import INT32, Range, check_number
from mdm_jax.sampling import SampleResult, sample
from mdm_jax.selection import PerStep
from mdm_jax.typing import Array, Denoiser, Features, Oracle, Params, Selector

Work = Callable[[], Any]
"""Work to time. It returns arrays to wait for, or returns when it is done."""
ONE_BY_ONE: Mapping[str, Selector] = {"per_step:1": PerStep(1)}


class Case(NamedTuple):
    """One way to sample."""

    oracle_name: str
    oracle: Oracle
    selector_name: str
    selector: Selector
    temperature: float


class Timed(NamedTuple):
    """The measurements of a case."""

    nfe: int
    """network calls of the sampler"""
    seconds: Mapping[str, Sequence[float]]
    """seconds of each turn: "ours", the same number of calls of the bare "network", and other work"""
    compile_s: float
    peak_bytes: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """The network and the sequences to fill in, the same for every case.

    Attributes:
      denoiser: the denoiser that `sampler` takes.
      params: its parameters.
      x_init: int32 [B, L].
      mask_id: the id of the mask token.
      network: (params, tokens) -> logits or Features, the bare network that sampling is compared with.
      sampler: `sample`, or a function of the same arguments.
      block_length: as for `sample`.
      turns: the number of turns.
      seed: the seed of the draws.
    """

    denoiser: Any
    params: Params
    x_init: Array
    mask_id: int
    network: Denoiser
    sampler: Callable[..., SampleResult] = sample
    block_length: int | None = None
    turns: int = 7
    seed: int = 0

    @property
    def num_generated(self) -> int:
        """The number of tokens that a call generates."""
        return int((self.x_init == self.mask_id).sum())

    def sampled(self, case: Case, params: Params, key: Array, x_init: Array) -> SampleResult:
        """Samples once. This is the function that is timed."""
        options: dict[str, Any] = {"mask_id": self.mask_id, "oracle": case.oracle, "selector": case.selector}
        options |= {"temperature": case.temperature, "block_length": self.block_length}
        return self.sampler(self.denoiser, params, key, x_init, **options)

    @functools.cached_property
    def network_calls(self) -> Callable[..., Array]:
        """`network_calls` of the bare network, compiled once for all cases."""
        return jax.jit(functools.partial(network_calls, self.network))

    def time(self, case: Case, others: Callable[[int], Mapping[str, Work]] | None = None) -> Timed:
        """Compiles and times one case.

        Args:
          case: the case.
          others: makes other work to time in the same turns, by name, from the number of network calls; None for none.
        """
        key, begin = jax.random.key(self.seed), time.perf_counter()
        compiled = jax.jit(functools.partial(self.sampled, case)).lower(self.params, key, self.x_init).compile()
        compile_s = time.perf_counter() - begin
        ours = functools.partial(compiled, self.params, key, self.x_init)
        nfe = int(ours().nfe)
        bare = functools.partial(self.network_calls, self.params, self.x_init, nfe)
        works: dict[str, Work] = {"network": bare, "ours": ours}
        works |= {} if others is None else others(nfe)
        return Timed(nfe, in_turns(works, self.turns), compile_s, peak_bytes(compiled.memory_analysis()))

    def row(self, case: Case, timed: Timed) -> dict[str, Any]:
        """The row of a case, with the fields of `benchmark`."""
        ours, network = timed.seconds["ours"], timed.seconds["network"]
        overheads = sorted(one / other - 1 for one, other in zip(ours, network, strict=True))
        return {
            "oracle": case.oracle_name,
            "selector": case.selector_name,
            "temperature": case.temperature,
            **self.rates(timed.nfe, ours),
            "network_ms": 1000 * statistics.median(network) / timed.nfe,
            "overhead": statistics.median(overheads),
            "overhead_range": [overheads[0], overheads[-1]],
            "peak_bytes": timed.peak_bytes,
            "compile_s": round(timed.compile_s, 2),
        }

    def rates(self, nfe: int, seconds: Sequence[float]) -> dict[str, Any]:
        """The fields of a row that need only the times of one implementation."""
        median = statistics.median(seconds)
        return {
            "nfe": nfe,
            "ms_per_nfe": 1000 * median / nfe,
            "ms_per_nfe_range": [1000 * min(seconds) / nfe, 1000 * max(seconds) / nfe],
            "sequences_per_s": self.x_init.shape[0] / median,
            "tokens_per_s": self.num_generated / median,
        }


def benchmark(
    denoiser: Denoiser,
    params: Params,
    x_init: ArrayLike,
    *,
    mask_id: int,
    oracles: Mapping[str, Oracle] = ORACLES,
    selectors: Mapping[str, Selector] = ONE_BY_ONE,
    temperatures: Sequence[float] = (0.0, 1.0),
    block_length: int | None = None,
    turns: int = 7,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Times `sample` for every oracle, selector and temperature, in alternating turns with the bare network.

    In a turn of the bare network the denoiser is called as often as sampling calls it, one call after the other. Each
    call makes all logits, and nothing is chosen. A first turn of each warms up. Compare times only with times from the
    same machine in the same run.

    Args:
      denoiser: as for `sample`.
      params: its parameters.
      x_init: int [B, L], with `mask_id` at the positions to fill in.
      mask_id: the id of the mask token.
      oracles: the oracles, by their names in the rows.
      selectors: the selectors, by their names in the rows.
      temperatures: the sampling temperatures.
      block_length: as for `sample`.
      turns: the number of turns.
      seed: the seed of the draws.

    Returns:
      A row for each case: oracle, selector, temperature, batch, length; nfe; ms_per_nfe and network_ms, medians over
      the turns; overhead = ms_per_nfe / network_ms - 1, the median over pairs of turns; sequences_per_s and
      tokens_per_s, without given tokens; peak_bytes, the arguments, results and temporary arrays of the compiled
      sampler (None if the backend does not report them); compile_s; NAME_range, the lowest and the highest turn; and a
      `warning` if the machine was busy before.

    Raises:
      InputError: as `sample`; or there is nothing to fill in, or nothing to measure.
    """
    warning = busy()
    check_number("turns", turns, Range(1, INT32), whole=True)
    check_number("seed", seed, Range(0, 2**32 - 1), whole=True)
    tokens, mask_id = check_tokens(x_init, "x_init"), check_mask_id(mask_id)
    if not bool((tokens == mask_id).any()):
        raise InputError(f"x_init holds no mask (id {mask_id}), so that nothing would be timed")
    cases = list(cases_of(oracles, selectors, temperatures))
    if not cases:
        raise InputError("nothing to measure: give at least one oracle, one selector and one temperature")
    bench = Bench(denoiser, params, tokens, mask_id, denoiser, block_length=block_length, turns=int(turns), seed=seed)
    same: dict[str, Any] = {"batch": tokens.shape[0], "length": tokens.shape[1]}
    same |= {} if warning is None else {"warning": warning}
    return [{**bench.row(case, bench.time(case)), **same} for case in cases]


def cases_of(
    oracles: Mapping[str, Oracle], selectors: Mapping[str, Selector], temperatures: Sequence[float]
) -> Iterator[Case]:
    """Yields every oracle with every selector at every temperature; raises InputError for invalid arguments."""
    for name, given in (("oracles", oracles), ("selectors", selectors)):
        if not isinstance(given, Mapping):
            raise InputError(f"{name} must be a mapping by name, such as {{'mine': mine}}; got {shown(given)}")
    if not isinstance(temperatures, Sequence):
        raise InputError(f"temperatures must be a sequence, such as (0.0, 1.0); got {shown(temperatures)}")
    for temperature in temperatures:
        is_greedy(temperature)
    for (oracle, selector), temperature in itertools.product(
        itertools.product(oracles.items(), selectors.items()), temperatures
    ):
        yield Case(*oracle, *selector, temperature)


def network_calls(network: Denoiser, params: Params, tokens: Array, count: Array) -> Array:
    """Calls the bare network `count` times, one call after the other. Each call makes all logits."""

    def run(_: Array, tokens: Array) -> Array:
        output = call(network, params, tokens)
        logits = linear(*output, output.hidden.dtype) if isinstance(output, Features) else output
        logits = jax.lax.optimization_barrier(logits)
        return tokens + (logits[0, 0, 0] > jnp.inf).astype(tokens.dtype)  # adds 0, but makes the next call wait

    return jax.lax.fori_loop(0, count, run, tokens)


def in_turns(works: Mapping[str, Work], turns: int) -> dict[str, list[float]]:
    """The seconds of each work in each turn, after a turn that warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            took = seconds(work)
            if turn:
                times[name].append(took)
    return times


def seconds(work: Work) -> float:
    """The seconds until the result of `work` is ready."""
    begin = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begin


def peak_bytes(needed: Any) -> int | None:
    """The bytes of the arguments, results and temporary arrays of a compiled program; None if unknown."""
    if needed is None:
        return None
    return int(
        needed.argument_size_in_bytes
        + needed.output_size_in_bytes
        + needed.temp_size_in_bytes
        - needed.alias_size_in_bytes
    )


def busy() -> str | None:
    """A warning if this machine did other work in the last minute; None if it was idle."""
    cores = os.cpu_count() or 1
    with contextlib.suppress(AttributeError, OSError):  # the system does not report its load
        load = os.getloadavg()[0]
        if load > cores / 2:
            return f"the machine was busy before: load {load:.1f} on {cores} cores"
    return None
