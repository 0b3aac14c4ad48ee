"""Loads a trained model together with its task. The values in its `config.json` are checked first."""

import importlib
import pathlib
import types
import typing
from typing import Any

import mdm_jax
from mdm_jax.errors import InputError, shown
from mdm_jax.loading import Model
from mdm_jax.models import kinds
from mdm_jax.ranges import check_ranges
from mdm_jax.tasks.base import Layout


def load_run(experiment: str, checkpoint: pathlib.Path) -> tuple[Model, Any, Layout]:
    """Loads a model, its task and its layout.

    Args:
      experiment: the experiment that the run must belong to. The `names` of its `train` flags are the values that
        `config.json` must hold; the flags give their types and ranges.
      checkpoint: as for `mdm_jax.load`.

    Raises:
      InputError: the run belongs to another experiment; `config.json` lacks a value or holds an impossible one; or the
        network does not fit the layout.
    """
    train = importlib.import_module(f"experiments.{experiment}").Train
    model = mdm_jax.load(checkpoint)
    found = model.task
    if (name := found.get("name")) != experiment:
        raise InputError(
            f"{checkpoint} is a run of {name if isinstance(name, str) else 'another task'}, not of {experiment}"
        )
    hints = typing.get_type_hints(train)
    wrong = [name for name in train.names if name not in found or not _fits(found[name], hints[name])]
    if wrong:
        raise InputError(f"the config.json of {checkpoint} has no usable {', '.join(wrong)} in its task; restore it")
    flags = train(**{name: found[name] for name in train.names})
    check_ranges(flags, name_of=lambda path: f"{path}, in the config.json of {checkpoint},")
    task = flags.task()
    layout = flags.layout_of(task)
    fields = kinds.to_json(model.config)
    for name, value in kinds.to_json(kinds.adapted(model.config, layout.network)).items():
        if (has := fields.get(name)) != value:
            raise InputError(
                f"the network of {checkpoint} does not fit its task: {name} is {shown(has)}, not {value}; restore "
                "its config.json, or train again if an older version wrote it"
            )
    return model, task, layout


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type that a flag has."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    return type(value) is (str if hint is pathlib.Path else hint)
