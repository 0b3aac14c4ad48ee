"""A trained model and the task it was trained on. What its `config.json` says is checked: it may say anything."""

import importlib
import pathlib
import types
import typing
from collections.abc import Iterable
from typing import Any

import mdm_jax
from mdm_jax.errors import InputError, shown
from mdm_jax.loading import Model, run_folder
from mdm_jax.ranges import check_ranges
from mdm_jax.tasks.base import Layout
from mdm_jax.training.config import read_config


def load_run(experiment: str, checkpoint: pathlib.Path) -> tuple[Model, Any, Layout]:
    """A trained model, its task and its layout.

    Args:
      experiment: the experiment that the run must belong to.
      checkpoint: as for `mdm_jax.load`.

    Raises:
      InputError: as `load_trained`; or the network does not fit the layout.
    """
    train = importlib.import_module(f"experiments.{experiment}").Train
    model, found = load_trained(experiment, checkpoint, train, train.names)
    flags = train(**found)
    task = flags.task()
    layout = flags.layout_of(task)
    check_network(checkpoint, model, **layout.network)
    return model, task, layout


def load_trained(
    experiment: str, checkpoint: pathlib.Path, flags: type, names: Iterable[str]
) -> tuple[Model, dict[str, Any]]:
    """A trained model, and the values of some flags of its training.

    Args:
      experiment: the experiment that the run must belong to.
      checkpoint: as for `mdm_jax.load`.
      flags: the dataclass of the training's flags, which gives the type and the range of each.
      names: the names of the flags.

    Raises:
      InputError: the run belongs to another experiment, or its `config.json` lacks a flag or holds an impossible value.
    """
    model = mdm_jax.load(checkpoint)
    task = read_config(run_folder(checkpoint)[0]).get("task", {})
    if (name := task.get("name")) != experiment:
        raise InputError(
            f"{checkpoint} is a run of {name if isinstance(name, str) else 'another task'}, not of {experiment}"
        )
    hints = typing.get_type_hints(flags)
    wrong = [name for name in names if name not in task or not _fits(task[name], hints[name])]
    if wrong:
        raise InputError(f"the config.json of {checkpoint} has no usable {', '.join(wrong)} in its task; restore it")
    found = {name: task[name] for name in names}
    check_ranges(flags(**found), name_of=lambda path: f"{path}, in the config.json of {checkpoint},")
    return model, found


def check_network(checkpoint: pathlib.Path, model: Model, **wanted: Any) -> None:
    """Raises InputError unless the fields of a model's config have the values that its task needs."""
    for name, value in wanted.items():
        if (found := getattr(model.config, name)) != value:
            raise InputError(
                f"the network of {checkpoint} does not fit its task: {name} is {shown(found)}, not {value}; restore "
                "its config.json, or train again if an older version wrote it"
            )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has a type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    return type(value) is (str if hint is pathlib.Path else hint)
