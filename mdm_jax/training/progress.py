"""The progress bar of a run with its rates, and a profiler trace of a few steps."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from types import TracebackType

import jax

from mdm_jax.progress import Bar

PEAK_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "L4": 121e12,
    "L40S": 362e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
"""Name in `device_kind` -> FLOP/s of one device (for a TPU v3: one core) in dense bfloat16
products, from the vendors' data sheets. MFU, model FLOP/s utilisation, is the share of this peak
that the model's own products reach, also if they run in float32. Source: Chowdhery et al. 2022,
arXiv:2204.02311."""


def peak_flops(device_kind: str) -> float | None:
    """The peak of a kind of device, by the longest name in it; None if it is unknown."""
    words = f" {device_kind} ".replace("-", " ")
    known = [name for name in PEAK_FLOPS if f" {name} " in words]
    return PEAK_FLOPS[max(known, key=len)] if known else None


class Progress:
    """The progress bar of a run. Its rates leave out the time of evaluations and saves."""

    def __init__(self, start: int, total: int, *, examples: int, flops: float | None, is_shown: bool) -> None:
        """Starts the bar.

        Args:
          start: number of steps that are done.
          total: number of steps in all.
          examples: per step, over all devices.
          flops: per example, of the model's products forward and backward; None if unknown.
          is_shown: whether the bar is printed.
        """
        self._bar = Bar(total=total, initial=start, unit="step", disable=not is_shown)
        self._examples, self._flops, self._length = examples, flops, 0
        self._steps = 0
        self._begin: float | None = None

    def advance(self, length: int) -> None:
        """Counts one step over sequences of `length`. The clock starts after the first one."""
        self._bar.update()
        self._length = length
        if self._begin is None:
            self._begin = time.perf_counter()
        else:
            self._steps += 1

    def show(self, loss: float, skipped: int) -> None:
        """Shows the loss in nats per token, the skipped steps, and the rates since the last call."""
        words = [f"loss {loss:.3f} nats/token"]
        if self._begin is not None and self._steps:
            words += self.rates(self._examples * self._steps / (time.perf_counter() - self._begin))
            self._steps, self._begin = 0, time.perf_counter()
        self._bar.set_postfix_str(", ".join(words + ([f"{skipped} steps skipped"] if skipped else [])))

    def rates(self, examples_per_second: float) -> list[str]:
        """Examples, tokens (also of prompts) and FLOP per second, and MFU if the peak is known."""
        words = [f"{examples_per_second:.4g} examples/s", f"{examples_per_second * self._length:.4g} tokens/s"]
        if self._flops is not None:
            flops = self._flops * examples_per_second
            words.append(f"{flops / 1e12:.3g} TFLOP/s")
            peak = peak_flops(jax.devices()[0].device_kind)
            words += [] if peak is None else [f"MFU {flops / peak / jax.device_count():.1%}"]
        return words

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count."""
        begin = time.perf_counter()
        yield
        if self._begin is not None:
            self._begin += time.perf_counter() - begin

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


class Trace:
    """Writes a profiler trace of a few steps for TensorBoard. A context manager."""

    def __init__(self, folder: pathlib.Path | None, *, start: int, total: int, num_steps: int = 5) -> None:
        """Chooses the steps: from the tenth of this start on, or earlier if the run is short.

        Args:
          folder: where to write; None traces nothing.
          start: number of steps that are done.
          total: number of steps in all.
          num_steps: number of steps to trace.
        """
        first = max(min(start + 10, total - num_steps + 1), min(start + 2, total))
        self.steps = range(first, min(first + num_steps, total + 1))
        self._folder, self._is_on = folder, False

    def before(self, step: int) -> None:
        """Must be called before each step."""
        if self._folder is not None and step == self.steps[0]:
            jax.profiler.start_trace(self._folder)
            self._is_on = True

    def after(self, step: int, done: jax.Array) -> None:
        """Must be called after each step, with an array that the step computed."""
        if self._is_on and step == self.steps[-1]:
            jax.block_until_ready(done)
            self._stop()

    def _stop(self) -> None:
        self._is_on = False
        jax.profiler.stop_trace()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_on:
            self._stop()
