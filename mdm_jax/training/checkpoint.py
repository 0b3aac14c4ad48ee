"""Checkpoints: parameters, average, optimizer, step, key and data position, with the config beside them. Orbax's home.

A folder of a run holds `config.json` and `checkpoints/STEP/`. Each checkpoint carries a digest of every array, since a
flipped bit in a data file restores without a word otherwise; a damaged checkpoint is passed over, and said so.
"""

import json
import pathlib
import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mdm_jax.errors import InputError
from mdm_jax.training.state import TrainState
from mdm_jax.typing import Array, Params

FORMAT = 1
CHECKPOINTS = "checkpoints"


def write_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Writes `config.json`; where one is there already, InputError unless it says the same."""
    check_config(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, **config}, indent=1) + "\n")


def check_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """InputError if `folder` holds a run with another config, which names what differs."""
    if (folder / "config.json").exists():
        config = json.loads(json.dumps({"format": FORMAT, **config}))
        found = read_config(folder)
        differing = sorted(k for k in found.keys() | config.keys() if found.get(k) != config.get(k))
        for section in differing:
            old, new = found.get(section), config.get(section)
            names = f"{old} -> {new}"
            if isinstance(old, dict) and isinstance(new, dict):
                changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
                names = ", ".join(f"{k} {old.get(k)} -> {new.get(k)}" for k in changed)
            raise InputError(
                f"{folder} holds a run with another config ({section}: {names}); "
                "give the flags it was started with, or another --out"
            )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a run's folder; InputError where it is missing, broken or from a newer version."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        newest = config["format"]
        if not (isinstance(newest, int) and isinstance(config["model"], dict)):
            raise TypeError
    except FileNotFoundError:
        raise InputError(f"{folder} holds no config.json; give the folder of a run") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(
            f"{path} cannot be read as a run's config; restore it, or train anew in another folder"
        ) from None
    if newest > FORMAT:
        raise InputError(f"{path} has format {newest}, this version reads up to {FORMAT}; update mdm_jax")
    return config


def _bits(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[leaf.dtype.itemsize]
    return jnp.sum(jax.lax.bitcast_convert_type(leaf, unsigned), dtype=jnp.uint32)


@jax.jit
def _digests(tree: Any) -> Any:
    return jax.tree.map(_bits, tree)


def digest(tree: Any) -> dict[str, int]:
    """A sum of the bits of every array, by path: any flipped bit shows, and neither order nor sharding matters."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(_digests(tree)))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): int(value) for path, value in leaves}


def _items(state: TrainState) -> dict[str, Any]:
    """What is saved apart, so that parameters alone can be loaded."""
    items = {"params": state.params, "optimizer": {"step": state.step, "opt_state": state.opt_state, "key": state.key}}
    return items if state.ema is None else {**items, "ema": state.ema}


class Checkpointer:
    """Saves and restores the states of one run. A context manager: leaving it finishes the save in progress."""

    def __init__(self, folder: pathlib.Path, *, keep: int = 2) -> None:
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(keep)])
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves `state` under its step, in the background; a step not above the newest is a RuntimeError."""
        step, newest = int(state.step), self._manager.latest_step()
        if newest is not None and step <= newest:
            raise RuntimeError(f"step {step} was not saved: the newest checkpoint is of step {newest}")
        items = _items(state)
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        extra = {"format": FORMAT, "digest": {name: digest(item) for name, item in items.items()}, "data": data_state}
        self._manager.save(step, args=ocp.args.Composite(extra=ocp.args.JsonSave(extra), **saves), force=True)

    def restore(self, like: TrainState, say: Callable[[str], None]) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state that reads back whole, and its data position; None where the run has none yet.

        Args:
          like: shapes, dtypes and shardings to restore into.
          say: told, in one line, of each damaged checkpoint that is passed over.

        Raises:
          InputError: there are checkpoints, and none can be read.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                items, extra = _restore(self._manager, step, _items(like))
            except Exception as error:  # Orbax raises whatever its storage layers raise
                say(f"checkpoint {step} is damaged and was passed over: {_one_line(error)}")
                damaged.append(step)
                continue
            self._set_aside(damaged)
            rest = items["optimizer"]
            state = TrainState(rest["step"], items["params"], items.get("ema"), rest["opt_state"], rest["key"])
            return state, extra["data"]
        if damaged:
            raise InputError(f"none of the checkpoints {damaged} can be read; train anew in another folder")
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints to `damaged/STEP`, so that the run can save those steps again."""
        for step in steps:
            target = self._folder / "damaged" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.move(self._folder / CHECKPOINTS / str(step), target)
        if steps:
            self._manager.reload()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()


def restore_params(folder: pathlib.Path, like: Params, *, step: int | None = None) -> Params:
    """The parameters of a run, its average where it kept one, from its newest readable checkpoint or from `step`.

    Args:
      folder: a run's folder.
      like: shapes, dtypes and shardings to restore into.
      step: of the checkpoint; None is the newest that can be read.

    Raises:
      InputError: there is no such checkpoint, or it is damaged, or its arrays have other shapes.
    """
    path = (folder / CHECKPOINTS).absolute()
    numbers = [int(entry.name) for entry in path.iterdir() if entry.name.isdigit()] if path.is_dir() else []
    steps = sorted(numbers, reverse=True) if step is None else [step]
    if not steps or (step is not None and step not in numbers):
        raise InputError(f"{folder} holds no checkpoint{'' if step is None else f' of step {step}'}; train first")
    problems = []
    with ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(create=False)) as manager:
        for number in steps:
            name = "ema" if (path / str(number) / "ema").is_dir() else "params"
            stored = in_float32(like) if name == "ema" else like
            try:
                params = _restore(manager, number, {name: stored})[0][name]
                return jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), params, like)
            except Exception as error:  # as above
                problems.append(f"step {number}: {_one_line(error)}")
    raise InputError(f"no checkpoint of {folder} can be read ({'; '.join(problems)})")


def in_float32(like: Params) -> Params:
    """The shapes of averages: as those of the parameters, in float32."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), like)


def _restore(manager: ocp.CheckpointManager, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Items and extra of one checkpoint, checked against its digests."""
    restores = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
    restored = manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore(), **restores))
    items = {name: restored[name] for name in like}
    for name, item in items.items():
        if digest(item) != restored.extra["digest"][name]:
            raise ValueError(f"the digest of its {name} differs")
    return items, restored.extra


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
