"""`load`: the one door from a folder on disk to a model that samples. Reached lazily, as it needs Flax and Orbax."""

import pathlib
from typing import NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from mdm_jax.errors import InputError
from mdm_jax.models.config import TransformerConfig
from mdm_jax.models.transformer import init_params, make_denoiser
from mdm_jax.training.checkpoint import CHECKPOINTS, restore_params
from mdm_jax.training.config import read_config
from mdm_jax.typing import Denoiser, Params


class Model(NamedTuple):
    """A trained network, ready for `mdm_jax.sample(model.denoiser, model.params, ...)`."""

    config: TransformerConfig
    params: Params
    denoiser: Denoiser


def run_folder(path: str | pathlib.Path) -> tuple[pathlib.Path, int | str | None]:
    """The run's folder that `path` names, and the step, or "best", if it names one checkpoint: RUN/checkpoints/STEP."""
    folder = pathlib.Path(path)
    if folder.name == "best" and folder.parent.name == CHECKPOINTS and folder.parent.is_dir():
        return folder.parent.parent, "best"
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder of a run, or one of its checkpoints")
    if folder.name == CHECKPOINTS:
        return folder.parent, None
    if folder.parent.name == CHECKPOINTS and folder.name.isdigit():
        return folder.parent.parent, int(folder.name)
    return folder, None


def load(path_or_name: str | pathlib.Path) -> Model:
    """Loads a trained model onto the first device.

    Args:
      path_or_name: a run's folder (its newest readable checkpoint), or one checkpoint, RUN/checkpoints/STEP, or the one
        that did best in evaluation, RUN/checkpoints/best.

    Returns:
      Its config, its parameters (the moving average where the run kept one), and its denoiser.

    Raises:
      InputError: there is no such folder, or no checkpoint in it, or none that can be read.
    """
    folder, step = run_folder(path_or_name)
    config = TransformerConfig.from_json(read_config(folder)["model"])
    device = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
    return Model(config, restore_params(folder, like, step=step), make_denoiser(config))
