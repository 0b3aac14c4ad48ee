"""`load` and `export`: a model from a folder, and to one. Imported lazily: needs Flax and Orbax."""

import dataclasses
import functools
import os
import pathlib
import types
import zlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, get_args

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from mdm_jax.errors import InputError, shown
from mdm_jax.files import local_path
from mdm_jax.models import kinds
from mdm_jax.models.config import DType, ModelConfig
from mdm_jax.models.looped import LOOPS
from mdm_jax.models.pretrained.folder import (
    CONFIG,
    read_folder,
    read_foreign_config,
    token_ids,
    write_folder,
)
from mdm_jax.models.weights import WEIGHTS, by_name, check_finite, read_weights, save_weights
from mdm_jax.sharding import shardings
from mdm_jax.training.checkpoint import CHECKPOINTS, restore_params
from mdm_jax.training.config import OWN, check_config, read_config, write_config
from mdm_jax.training.lora import from_json as lora_from_json
from mdm_jax.training.record import all_steps
from mdm_jax.typing import Params

SHIPPED = pathlib.Path(__file__).parent / "weights"
"""Weights that are part of the package, one folder for each name."""

FORMATS = ("mdm_jax", "huggingface")


class _Network(NamedTuple):
    config: ModelConfig
    params: Params
    denoiser: Any
    """a Denoiser; those of this library also give Features"""


class Model(_Network):
    """A trained network: the tuple (config, params, denoiser), and one attribute.

    Attributes:
      task: what it was trained for, as its `config.json` says: the task's name, and the fields of its data and layout.
        Empty if the run named no task. Of a model of another program, the ids of its special tokens.
    """

    task: Mapping[str, Any] = types.MappingProxyType({})

    def __new__(cls, config: ModelConfig, params: Params, denoiser: Any, task: Mapping[str, Any] | None = None) -> Self:
        """The tuple, with its task."""
        self = super().__new__(cls, config, params, denoiser)
        self.task = types.MappingProxyType(dict(task or {}))
        return self

    def __repr__(self) -> str:
        dtypes = " and ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(self.params)}))
        defaults = {field.name: field.default for field in dataclasses.fields(self.config)}
        changed = (f"{k}={v!r}" for k, v in self.config.to_json().items() if v != defaults[k])
        return f"Model({kinds.num_params(self.params):,} parameters in {dtypes}: {', '.join(changed)})"


def run_folder(path: str | pathlib.Path) -> tuple[pathlib.Path, int | str | None]:
    """The folder of the run or weights that `path` names, and the step of the checkpoint it names.

    The step is a number or "best", and None if the path names no checkpoint.
    """
    folder = local_path(path)
    if os.path.exists(SHIPPED / str(path) / WEIGHTS) and len(folder.parts) == 1 and not os.path.exists(folder):
        return SHIPPED / str(path), None
    if folder.name == "best" and folder.parent.name == CHECKPOINTS and os.path.isdir(folder.parent):
        return folder.parent.parent, "best"
    if not os.path.isdir(folder):  # unlike Path.is_dir it never raises
        names = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS}"))) or "none"
        raise InputError(
            f"there is no folder {folder}; give a run's folder, one of its checkpoints, a Hugging Face folder, or "
            f"shipped weights ({names})"
        )
    if folder.name == CHECKPOINTS:
        return folder.parent, None
    if folder.parent.name == CHECKPOINTS and folder.name.isascii() and folder.name.isdigit():
        return folder.parent.parent, int(folder.name)
    return folder, None


def identity(path: str | pathlib.Path) -> str:
    """Text that changes when the weights that `path` names do: of their files the names, sizes and times of change.

    Raises:
      InputError: there is no such folder.
    """
    folder, step = run_folder(path)
    if steps := all_steps(folder):
        folder = folder / CHECKPOINTS / str(steps[-1] if step is None else step)
    files = [(file.relative_to(folder).as_posix(), file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
    text = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, stat in files)
    return f"{zlib.crc32(text.encode()):08x}"


def load(path_or_name: str | pathlib.Path, *, mesh: Mesh | None = None) -> Model:
    """Loads a trained model.

    Args:
      path_or_name: one of: the folder of a run, for its newest readable checkpoint; a checkpoint,
        RUN/checkpoints/STEP; RUN/checkpoints/best, the checkpoint with the best score in
        evaluation; a folder that `export` wrote; a Hugging Face folder of a family in
        `models.pretrained`; the name of weights in this package, such as "sudoku-6m". The adapters
        of a run are merged into their base.
      mesh: devices for the parameters, which are sharded by `sharding.RULES`; None is the first
        device.

    Returns:
      The config, the parameters (their moving average if the run kept one), the denoiser, and the
      task. Parameters of a Hugging Face folder keep the dtypes of its files.

    Raises:
      InputError: there is no such folder, or no readable checkpoint in it; or the parameters are
        damaged or not finite; or a field of a Hugging Face config.json is not supported.

    Example:
      model = mdm_jax.load("sudoku-6m")
      tokens = jnp.zeros((1, model.config.max_length), jnp.int32)
      logits = model.denoiser(model.params, tokens)
      assert logits.shape == (*tokens.shape, model.config.vocab_size)
    """
    folder, step = run_folder(path_or_name)
    if (foreign := read_foreign_config(folder)) is not None:
        config, params = read_folder(folder, foreign, mesh=mesh)
        return Model(config, params, kinds.make_denoiser(config), token_ids(foreign))
    if not os.path.exists(folder / "config.json"):
        raise InputError(f"{folder} holds no config.json; give a run's folder, or a Hugging Face folder")
    run = read_config(folder)
    model, task = run["model"], run.get("task")
    if model == OWN:
        raise InputError(
            f"the network of {folder} is of no registered kind (mdm_jax.models.kinds.register): make it yourself, and "
            "read its parameters with mdm_jax.training.checkpoint.restore_params"
        )
    config = kinds.from_json(model)
    if "lora" in run:
        params = _adapted(folder, run["lora"], step, mesh)
    elif (folder / WEIGHTS).exists():
        params = read_weights(folder, _placed(kinds.param_shapes(config), mesh))
    else:
        params = restore_params(folder, _placed(kinds.param_shapes(config), mesh), step=step)
        check_finite(folder, by_name(params))
    return Model(config, params, kinds.make_denoiser(config), task)


def _placed(shapes: Params, mesh: Mesh | None) -> Params:
    """Shapes with where they shall lie."""
    device = SingleDeviceSharding(jax.devices()[0])
    targets = jax.tree.map(lambda _: device, shapes) if mesh is None else shardings(mesh, shapes)
    return jax.tree.map(lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to), shapes, targets)


def _adapted(folder: pathlib.Path, recorded: Mapping[str, Any], step: int | str | None, mesh: Mesh | None) -> Params:
    """The parameters of a run that trained adapters: those of its base, changed."""
    try:
        lora = lora_from_json(recorded)
        base = load(lora.base, mesh=mesh).params
        lora.check(base, recorded)
    except InputError as error:
        raise InputError(f"{folder / CONFIG} names a base that cannot be taken: {error}") from error
    shapes = jax.eval_shape(functools.partial(lora.init, base), jax.random.key(0))
    adapters = restore_params(folder, _placed(shapes, mesh), step=step)
    check_finite(folder, by_name(adapters))
    return lora.merged(base, adapters)


def export(
    model: Model | str | pathlib.Path,
    folder: str | pathlib.Path,
    *,
    dtype: DType | None = None,
    format: Literal["mdm_jax", "huggingface"] = "mdm_jax",
) -> pathlib.Path:
    """Writes a model as safetensors and `config.json`, which `load` reads.

    Args:
      model: a Model, or what `load` takes.
      folder: to write to; made if it does not exist.
      dtype: of the parameters in the file; the dtype of computations is part of the config. None is
        bfloat16 in our own format, and the parameters' own dtypes in Hugging Face's.
      format: "mdm_jax", or "huggingface" with the tensor names of the model's family, which
        transformers opens.

    Returns:
      The path of the weights, or of the first of several files.

    Raises:
      InputError: as `load`; or `folder` holds another model; or a parameter is too large for
        `dtype`; or no Hugging Face family has such models.
    """
    folder = local_path(folder)
    for name, value, known in (("dtype", dtype, (*get_args(DType), None)), ("format", format, FORMATS)):
        if value not in known:
            raise InputError(f"{name}={shown(value)} is unknown: choose from {', '.join(map(str, known))}")
    model = model if isinstance(model, Model) else load(model)
    if LOOPS in model.params:
        raise InputError(f"the parameters hold a chosen {LOOPS}: give those without it, and the number in the config")
    if format == "huggingface":
        params = model.params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), model.params)
        check_finite(f"the parameters in {dtype}", by_name(params))
        return write_folder(folder, model.config, params, token_ids(model.task))
    config = {"model": kinds.to_json(model.config), "task": dict(model.task)}
    check_config(folder, config)
    path = save_weights(folder, model.params, dtype=dtype or "bfloat16")
    write_config(folder, config)
    return path
