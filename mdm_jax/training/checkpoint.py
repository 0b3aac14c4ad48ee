"""Checkpoints: parameters, average, optimizer, step, key and data position. Orbax's home.

A run's folder holds them in `checkpoints/STEP/`. Each carries a digest of every array, since a flipped bit in a data
file restores without a word otherwise; a damaged checkpoint is passed over, and said so.
"""

import contextlib
import json
import math
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mdm_jax.errors import InputError, LostPeerError, RunError
from mdm_jax.files import read_bytes
from mdm_jax.training.config import FORMAT
from mdm_jax.training.digest import DIGEST, digest, shapes
from mdm_jax.training.distributed import barrier, is_lead
from mdm_jax.training.state import TrainState, as_stored
from mdm_jax.typing import Params

CHECKPOINTS = "checkpoints"
PATIENCE = 300
"""Seconds that the processes of a run wait for each other's part of a checkpoint."""


def _items(state: TrainState) -> dict[str, Any]:
    """What is saved apart, so that parameters alone can be loaded."""
    rest = {name: getattr(state, name) for name in ("step", "skipped", "skipped_in_a_row", "opt_state", "key")}
    items = {"params": state.params, "optimizer": rest, "ema": state.ema, "pool": state.pool}
    return {name: item for name, item in items.items() if item is not None}


class Checkpointer:
    """Saves and restores the states of one run. A context manager: leaving it finishes the save in progress.

    The newest `keep` checkpoints stay, and the one with the highest score. All processes of a run make the same calls.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, metric: str = "") -> None:
        """Opens the checkpoints of a run.

        Args:
          folder: of the run.
          keep: newest checkpoints that stay.
          metric: what scores are of; those of another one do not count.
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
        self._unscored = [step for step in _steps(self._folder) if _read_score(self._folder, step) is None]
        if self._unscored and self._unscored == _steps(self._folder):
            raise _none_left(self._unscored)
        self._set_aside(self._unscored)
        self._manager = ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)
        self.best_score = self._best_on_disk()
        """the highest score of the run's checkpoints, those being saved included; -inf where none has one"""
        self.seconds = 0.0
        """what the run had taken when it saved what was restored"""

    @property
    def folder(self) -> pathlib.Path:
        """Where the checkpoints lie."""
        return self._folder / CHECKPOINTS

    @property
    def what_is_good(self) -> str:
        """Which checkpoint the run can go on from, in words."""
        steps = _steps(self._folder)
        return f"checkpoint {steps[-1]} is good" if steps else "there is no checkpoint yet"

    def _best_on_disk(self) -> float:
        scores = [_read_score(self._folder, step) for step in _steps(self._folder)]
        return max((self._score(score) for score in scores if score is not None), default=-math.inf)

    def _score(self, metrics: dict[str, Any]) -> float:
        return metrics["score"] if metrics["metric"] == self._metric and metrics["score"] is not None else -math.inf

    def save(
        self, state: TrainState, data_state: dict[str, Any], *, score: float | None = None, seconds: float = 0.0
    ) -> None:
        """Saves `state` under its step, in the background.

        Args:
          state: of the run.
          data_state: the position in the data.
          score: of the parameters; the checkpoint with the highest is kept.
          seconds: what the run took so far.

        Raises:
          RuntimeError: the newest checkpoint is of this step or a later one.
          RunError: this one, or the one before, cannot be written.
        """
        step, newest = int(state.step), self._manager.latest_step()
        if newest is not None and step <= newest:
            raise RuntimeError(f"step {step} was not saved: the newest checkpoint is of step {newest}")
        items = _items(state)
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        extra = {
            "format": FORMAT,
            "digest_version": DIGEST,
            "digest": {name: digest(item) for name, item in items.items()},
            "shapes": {name: shapes(item) for name, item in items.items()},
            "data": data_state,
            "seconds": seconds,
        }
        extra["crc32"] = _crc32(extra)
        arguments = ocp.args.Composite(extra=ocp.args.JsonSave(extra), **saves)
        with self._writing():
            self._manager.save(step, args=arguments, metrics={"metric": self._metric, "score": score}, force=True)
        self.best_score = self.best_score if score is None else max(score, self.best_score)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What goes wrong with the disk becomes one line."""
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
        """The newest state that reads back whole, and its data position; None where the run has none yet.

        Args:
          like: shapes, dtypes and shardings to restore into.
          say: told, in one line, of each damaged checkpoint that is passed over.

        Raises:
          InputError: there are checkpoints, and none can be read; or a newer version of this library wrote one; or they
            are of another network or optimizer. Nothing is touched then.
        """
        for step in self._unscored if is_lead() else ():
            say(f"checkpoint {step} is damaged and was passed over: its score cannot be read")
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem = ""
            try:
                items, extra = _read(self._folder / CHECKPOINTS / str(step), _items(like))
            except InputError:
                raise
            except Exception as error:  # as above
                problem = _one_line(error)
            if any_process(bool(problem)):  # before anything else that all processes do together
                problem = problem or "another process cannot read it"
            else:
                problem = _difference(items, extra)
            if problem:
                if is_lead():
                    say(f"checkpoint {step} is damaged and was passed over: {problem}")
                damaged.append(step)
                continue
            self._set_aside(damaged)
            if damaged:
                self._manager.reload()
                self.best_score = self._best_on_disk()
            self.seconds = extra.get("seconds", 0.0)
            rest = items.pop("optimizer")
            return TrainState(**{"ema": None, **items, **rest}), extra["data"]
        if damaged:
            raise _none_left(damaged)
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints to `damaged/STEP`, so that the run can save those steps again."""
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
        if not isinstance(error, LostPeerError):  # it would wait for the lost one
            with self._writing():
                self._manager.close()


_DISK_ERRORS = ("No space left", "Disk quota", "File too large", "Read-only file system")


def _steps(folder: pathlib.Path) -> list[int]:
    """The steps of a run's checkpoints that are whole as far as their names tell, in order."""
    path = folder / CHECKPOINTS
    return sorted(int(entry.name) for entry in path.iterdir() if is_step(entry.name)) if path.is_dir() else []


def is_step(name: str) -> bool:
    """Whether a checkpoint may be called so."""
    return name.isascii() and name.isdecimal()


def _none_left(damaged: list[int]) -> InputError:
    return InputError(f"none of the checkpoints {damaged} can be read; train anew in another folder")


def _read_score(folder: pathlib.Path, step: int) -> dict[str, Any] | None:
    """What a checkpoint says of its score; None if that cannot be read, which Orbax would raise for at the start."""
    try:
        metrics = json.loads(read_bytes(folder / CHECKPOINTS / str(step) / "metrics" / "metrics"))
        return {
            "metric": str(metrics["metric"]),
            "score": None if metrics["score"] is None else float(metrics["score"]),
        }
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _best_step(folder: pathlib.Path) -> int:
    """The checkpoint with the highest score, by the metric that the newest score is of."""
    read = [(step, _read_score(folder, step)) for step in _steps(folder)]
    scored = [(step, score) for step, score in read if score is not None and score["score"] is not None]
    if not scored:
        raise InputError(f"{folder} holds no checkpoint with a score; name the one you want, or train with a metric")
    metric = scored[-1][1]["metric"]
    return max((score["score"], step) for step, score in scored if score["metric"] == metric)[1]


def restore_params(folder: pathlib.Path, like: Params, *, step: int | str | None = None) -> Params:
    """The parameters of a run, its average where it kept one, from its newest readable checkpoint or from `step`.

    Args:
      folder: a run's folder.
      like: shapes, dtypes and shardings to restore into.
      step: of the checkpoint; "best" is the one with the highest score, None the newest that can be read.

    Raises:
      InputError: there is no such checkpoint, or it is damaged, or its arrays have other shapes.
    """
    path, numbers = (folder / CHECKPOINTS).absolute(), _steps(folder)
    if not numbers:
        raise InputError(f"{folder} holds no checkpoint; train first")
    wanted = _best_step(folder) if step == "best" else step
    steps = sorted(numbers, reverse=True) if wanted is None else [int(wanted)]
    if not set(steps) <= set(numbers):
        raise InputError(f"{folder} holds no checkpoint of step {step}; it has {', '.join(map(str, numbers))}")
    problems = []
    for number in steps:
        name = "ema" if (path / str(number) / "ema").is_dir() else "params"
        try:
            items, extra = _read(path / str(number), {name: in_float32(like)})
            problem = _difference(items, extra)
        except InputError:
            raise
        except Exception as error:  # as above
            problem = _one_line(error)
        if not problem:
            return as_stored(items[name], like)
        problems.append(f"step {number}: {problem}")
    raise InputError(f"no checkpoint of {folder} can be read ({'; '.join(problems)})")


def in_float32(like: Params) -> Params:
    """The shapes of what checkpoints hold: as those of the parameters, in float32."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), like)


def _read(checkpoint: pathlib.Path, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Items and extra of the checkpoint in a folder."""
    strange = [path.name for path in checkpoint.rglob("*") if not (path.is_file() or path.is_dir())]
    if strange:  # a pipe would hold up a thread of Orbax for ever
        raise ValueError(f"{strange[0]} in it is no regular file")
    extra = json.loads((checkpoint / "extra" / "metadata").read_text())
    if extra["format"] > FORMAT:
        raise InputError(
            f"{checkpoint} has format {extra['format']}, this version reads up to {FORMAT}; update mdm_jax"
        )
    if extra.pop("crc32") != _crc32(extra):
        raise ValueError("the digest of its data position differs")
    _check_same(checkpoint, like, extra)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as reader:  # a process that fails holds up no other
        return {name: reader.restore(checkpoint / name, item) for name, item in like.items()}, extra


def _check_same(checkpoint: pathlib.Path, like: dict[str, Any], extra: dict[str, Any]) -> None:
    """InputError if the arrays of a checkpoint that is not damaged are not those that are wanted."""
    for item, arrays in like.items():
        wanted, found = shapes(arrays), extra.get("shapes", {}).get(item)
        if found is None:  # of an older version: names alone
            found = {name: wanted.get(name) for name in extra["digest"].get(item, {})}
        differing = [name for name in wanted | found if wanted.get(name) != found.get(name) or name not in found]
        if differing:
            name = differing[0]
            old, new = (" x ".join(map(str, tree[name])) if name in tree else "not" for tree in (found, wanted))
            what = "optimizer" if item == "optimizer" else "network"
            raise InputError(
                f"{checkpoint} is of another {what}: {name} is {old or 'a number'} there and {new or 'a number'} here; "
                "give the one it was trained with, or another folder"
            )


def trained_seconds(folder: pathlib.Path) -> float:
    """What a run took up to its newest checkpoint; 0 where there is none that says it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        newest = folder / CHECKPOINTS / str(_steps(folder)[-1])
        return float(json.loads((newest / "extra" / "metadata").read_text())["seconds"])
    return 0.0


def _difference(items: dict[str, Any], extra: dict[str, Any]) -> str:
    """Which items are not what their digests say, in words; a computation of all processes."""
    version = extra.get("digest_version", 1)
    differing = [name for name, item in items.items() if digest(item, version) != extra["digest"][name]]
    return f"the digest of its {' and '.join(differing)} differs" if differing else ""


def _crc32(extra: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(extra, sort_keys=True).encode())


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process of the run."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(jnp.asarray(flag)).any())


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
