"""Checkpoints of a run: parameters, their average, optimizer, step, key and data position.

Orbax is used in this file only. A checkpoint is a folder `checkpoints/STEP/` in the folder of the
run, and has a record (`training.record`) by which damage is detected. A damaged checkpoint is
reported and passed over.
"""

import contextlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mdm_jax.errors import InputError, LostPeerError, RunError
from mdm_jax.training.distributed import any_process, barrier, is_lead
from mdm_jax.training.record import (
    CHECKPOINTS,
    all_steps,
    best_step,
    check_arrays,
    difference,
    make_record,
    read_record,
    read_score,
)
from mdm_jax.training.state import TrainState, as_stored
from mdm_jax.typing import Params

PATIENCE = 300
"""Seconds that the processes of a run wait for each other's part of a checkpoint."""


def _items(state: TrainState) -> dict[str, Any]:
    """The trees that are saved separately, so that parameters can be loaded alone."""
    rest = {name: getattr(state, name) for name in ("step", "skipped", "skipped_in_a_row", "opt_state", "key")}
    items = {"params": state.params, "optimizer": rest, "ema": state.ema, "pool": state.pool}
    return {name: item for name, item in items.items() if item is not None}


class Checkpointer:
    """Saves and restores the states of one run. A context manager: its exit finishes the last save.

    The newest `keep` checkpoints stay, and the one with the highest score. All processes of a run
    make the same calls.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, metric: str = "") -> None:
        """Opens the checkpoints of a run.

        Args:
          folder: of the run.
          keep: number of newest checkpoints that stay.
          metric: name of what scores measure. Scores of another metric do not count.

        Raises:
          InputError: there are checkpoints, and the score of none can be read.
        """
        self._metric = metric
        best = preservation_policy.BestN(get_metric_fn=self._score, n=1)
        keepers = [preservation_policy.LatestN(keep), best]
        options = ocp.CheckpointManagerOptions(
            best_fn=self._score,
            preservation_policy=preservation_policy.AnyPreservationPolicy(keepers),
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(timeout_secs=PATIENCE),
        )
        self._folder = folder.absolute()
        # Orbax would raise for these when it starts.
        self._unscored = [step for step in all_steps(self._folder) if read_score(self._folder, step) is None]
        if self._unscored and self._unscored == all_steps(self._folder):
            raise _none_left(self._unscored)
        self._set_aside(self._unscored)
        self._manager = ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)
        self.best_score = self._best_on_disk()
        """the highest score of the run's checkpoints, also of one being saved; -inf without any"""
        self.seconds = 0.0
        """run time at the save of the checkpoint that was restored"""

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the checkpoints."""
        return self._folder / CHECKPOINTS

    @property
    def what_is_good(self) -> str:
        """A phrase that names the checkpoint from which the run can go on."""
        steps = all_steps(self._folder)
        return f"checkpoint {steps[-1]} is good" if steps else "there is no checkpoint yet"

    def _best_on_disk(self) -> float:
        scores = [read_score(self._folder, step) for step in all_steps(self._folder)]
        return max((self._score(score) for score in scores if score is not None), default=-math.inf)

    def _score(self, metrics: dict[str, Any]) -> float:
        return metrics["score"] if metrics["metric"] == self._metric and metrics["score"] is not None else -math.inf

    def save(
        self, state: TrainState, data_state: dict[str, Any], *, score: float | None = None, seconds: float = 0.0
    ) -> None:
        """Saves `state` under its step, in the background.

        Args:
          state: of the run.
          data_state: position in the data.
          score: of the parameters; the checkpoint with the highest score is kept.
          seconds: run time so far.

        Raises:
          RuntimeError: the newest checkpoint is of this step or a later one.
          RunError: this checkpoint, or the one before it, cannot be written.
        """
        step, newest = int(state.step), self._manager.latest_step()
        if newest is not None and step <= newest:
            raise RuntimeError(f"step {step} was not saved: the newest checkpoint is of step {newest}")
        items = _items(state)
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        arguments = ocp.args.Composite(extra=ocp.args.JsonSave(make_record(items, data_state, seconds)), **saves)
        with self._writing():
            self._manager.save(step, args=arguments, metrics={"metric": self._metric, "score": score}, force=True)
        self.best_score = self.best_score if score is None else max(score, self.best_score)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an error of the disk into a RunError of one line."""
        try:
            yield
        except Exception as error:  # Orbax raises whatever its storage layers raise
            if not any(text in str(error) for text in _DISK_ERRORS):
                raise
            raise RunError(
                f"a checkpoint could not be written to {self._folder} ({_one_line(error)}); {self.what_is_good}: make "
                "room, and give the same command again"
            ) from None

    def restore(self, like: TrainState, say: Callable[[str], None]) -> tuple[TrainState, dict[str, Any]] | None:
        """Restores the newest checkpoint that is not damaged, and moves damaged ones aside.

        Args:
          like: shapes, dtypes and shardings to restore into.
          say: called with one line for each damaged checkpoint.

        Returns:
          The state and its data position; None if the run has no checkpoint yet.

        Raises:
          InputError: there are checkpoints, and all are damaged; or one is of a newer version of
            this library, or of another network or optimizer. Then no file is changed.
        """
        for step in self._unscored if is_lead() else ():
            say(f"checkpoint {step} is damaged and was passed over: its score cannot be read")
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem = ""
            try:
                items, record = _read(self._folder / CHECKPOINTS / str(step), _items(like))
            except InputError:
                raise
            except Exception as error:  # as in `_writing`
                problem = _one_line(error)
            if any_process(bool(problem)):  # before the next operation of all processes
                problem = problem or "another process cannot read it"
            else:
                problem = difference(items, record)
            if problem:
                if is_lead():
                    say(f"checkpoint {step} is damaged and was passed over: {problem}")
                damaged.append(step)
                continue
            self._set_aside(damaged)
            if damaged:
                self._manager.reload()
                self.best_score = self._best_on_disk()
            self.seconds = record["seconds"]
            rest = items.pop("optimizer")
            return TrainState(**{"ema": None, **items, **rest}), record["data"]
        if damaged:
            raise _none_left(damaged)
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints to `damaged/STEP`, so that the run can save these steps again."""
        if steps:
            barrier("all processes have seen which checkpoints are damaged")
        if steps and is_lead():
            for step in steps:
                target = self._folder / "damaged" / str(step)
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                shutil.move(self._folder / CHECKPOINTS / str(step), target)
        if steps:
            barrier("damaged checkpoints are set aside")

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, LostPeerError):  # closing would wait for the lost process
            with self._writing():
                self._manager.close()


_DISK_ERRORS = ("No space left", "Disk quota", "File too large", "Read-only file system")


def _none_left(damaged: list[int]) -> InputError:
    return InputError(f"none of the checkpoints {damaged} can be read; start again in another folder")


def restore_params(folder: pathlib.Path, like: Params, *, step: int | str | None = None) -> Params:
    """Restores the parameters of a run, or their average if the run kept one.

    Args:
      folder: of the run.
      like: shapes, dtypes and shardings to restore into.
      step: of the checkpoint; "best" is the one with the highest score, None the newest that is not
        damaged.

    Raises:
      InputError: there is no such checkpoint, or it is damaged, or its arrays have other shapes.
    """
    path, numbers = (folder / CHECKPOINTS).absolute(), all_steps(folder)
    if not numbers:
        raise InputError(f"{folder} holds no checkpoint; train first")
    chosen = best_step(folder) if step == "best" else step
    steps = sorted(numbers, reverse=True) if chosen is None else [int(chosen)]
    if not set(steps) <= set(numbers):
        raise InputError(f"{folder} holds no checkpoint of step {step}; it has {', '.join(map(str, numbers))}")
    problems = []
    for number in steps:
        name = "ema" if (path / str(number) / "ema").is_dir() else "params"
        try:
            items, record = _read(path / str(number), {name: in_float32(like)})
            problem = difference(items, record)
        except InputError:
            raise
        except Exception as error:  # as in `_writing`
            problem = _one_line(error)
        if not problem:
            return as_stored(items[name], like)
        problems.append(f"step {number}: {problem}")
    raise InputError(f"no checkpoint of {folder} can be read ({'; '.join(problems)})")


def in_float32(like: Params) -> Params:
    """Shapes and shardings of `like` in float32, the dtype of parameters in a checkpoint."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), like)


def _read(checkpoint: pathlib.Path, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trees named in `like`, and the record, from the folder of a checkpoint."""
    record = read_record(checkpoint)
    check_arrays(checkpoint, like, record)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as reader:  # a failing process blocks no other
        return {name: reader.restore(checkpoint / name, item) for name, item in like.items()}, record


def trained_seconds(folder: pathlib.Path) -> float:
    """The run time up to the newest checkpoint; 0 if no record says it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        newest = folder / CHECKPOINTS / str(all_steps(folder)[-1])
        return float(json.loads((newest / "extra" / "metadata").read_text())["seconds"])
    return 0.0


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
