"""`config.json` in the folder of a run: its settings, from which `load` makes the network.

A run that is continued in the folder must have the same settings.
"""

import json
import os
import pathlib
from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.files import make_folder, read_json, write_whole

FORMAT = 2
"""Version of the format of a run's folder."""

OWN = {"own": True}
"""The `model` of a network of no registered kind, which cannot be made from its config."""


def write_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Writes `config.json` whole or not at all; InputError if it exists with other settings."""
    check_config(folder, config)
    write_whole(make_folder(folder) / "config.json", _written(config))


def _written(config: dict[str, Any]) -> str:
    """The text of the file. Numbers of NumPy and JAX become Python's."""
    return json.dumps({"format": FORMAT, **config}, indent=1, default=lambda value: value.item()) + "\n"


def check_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """InputError if `folder` holds a run with another config. The message names the differences.

    Sections that the file in the folder lacks are not compared.
    """
    if os.path.exists(folder / "config.json"):
        config = json.loads(_written(config))
        found = read_config(folder)
        config["model"] = _as_read(config["model"])
        for model in (found["model"], config["model"]):
            model.pop("remat", None)  # it does not change results
        differing = sorted(name for name in found if found[name] != config.get(name))
        for section in differing:
            old, new = found.get(section), config.get(section)
            names = f"{old} -> {new}"
            if isinstance(old, dict) and isinstance(new, dict):
                changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
                names = ", ".join(f"{k} {old.get(k)} -> {new.get(k)}" for k in changed)
            raise InputError(
                f"{folder} holds a run with another config ({section}: {names}); "
                "give the settings it was started with, or another folder"
            )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a run's folder.

    Raises:
      InputError: it is missing, broken, or of another format.
    """
    path = folder / "config.json"
    if not os.path.exists(path):
        raise InputError(f"{folder} holds no config.json; give the folder of a run")
    advice = "restore it, or give another folder"
    what = f"a run's config; {advice}"
    config = read_json(path, what)
    sections = config if isinstance(config, dict) else {}
    names = ("model", "task", "optimizer", "lora")
    if "model_type" in sections and "format" not in sections:
        raise InputError(f"{path} is of a Hugging Face model and not of a run; give another folder")
    if sections and "format" not in sections:
        raise InputError(
            f"{path} cannot be read as a run's config, and has no model_type as a Hugging Face model's has; {advice}"
        )
    number, kinds = sections.get("format"), {type(sections.get(name, {})) for name in names}
    if not isinstance(number, int) or kinds != {dict} or "model" not in sections:
        raise InputError(f"{path} cannot be read as {what}")
    if number != FORMAT:
        advice = "update mdm_jax" if number > FORMAT else "use the version that wrote it, or train again"
        raise InputError(f"{path} has format {shown(number)}, this version reads format {FORMAT}; {advice}")
    sections["model"] = _as_read(sections["model"])
    return sections


def _as_read(model: dict[str, Any]) -> dict[str, Any]:
    """The fields of a model; one without a kind is a Transformer."""
    return model if model == OWN else {"kind": "transformer", **model}
