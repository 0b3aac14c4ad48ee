"""`config.json` in a run's folder: what the run is, so that the folder loads alone and takes in no other run."""

import json
import os
import pathlib
from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.files import make_folder, read_json, write_whole

FORMAT = 2
"""of a run's folder"""

OWN = {"own": True}
"""What `model` says where the network is of no registered kind: there is nothing to make it from."""

RETIRED = {"num_groups": 0, "group_length": 1}
"""Fields of a model that older versions wrote, with the values that ask for nothing."""


def write_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Writes `config.json`, whole or not at all; where one is there already, InputError unless it says the same."""
    check_config(folder, config)
    write_whole(make_folder(folder) / "config.json", _written(config))


def _written(config: dict[str, Any]) -> str:
    """The text of the file; numbers of NumPy and JAX become Python's."""
    return json.dumps({"format": FORMAT, **config}, indent=1, default=lambda value: value.item()) + "\n"


def check_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """InputError if `folder` holds a run with another config, which names what differs. It may say less."""
    if os.path.exists(folder / "config.json"):
        config = json.loads(_written(config))
        found = read_config(folder)
        for model in (found["model"], config["model"]):
            model.pop("remat", None)  # what is computed is the same
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
    """The `config.json` of a run's folder; InputError where it is missing, broken or from a newer version."""
    path = folder / "config.json"
    if not os.path.exists(path):
        raise InputError(f"{folder} holds no config.json; give the folder of a run")
    what = "a run's config; restore it, or train anew in another folder"
    config = read_json(path, what)
    sections = config if isinstance(config, dict) else {}
    number, kinds = sections.get("format"), [type(sections.get(name, {})) for name in ("model", "task", "optimizer")]
    if not isinstance(number, int) or kinds != [dict] * 3 or "model" not in sections:
        raise InputError(f"{path} cannot be read as {what}")
    if number != FORMAT:
        advice = "update mdm_jax" if number > FORMAT else "use the version that wrote it, or train anew"
        raise InputError(f"{path} has format {shown(number)}, this version reads format {FORMAT}; {advice}")
    model = {name: value for name, value in sections["model"].items() if (name, value) not in RETIRED.items()}
    sections["model"] = model if model == OWN else {"kind": "transformer", **model}  # the only one of older versions
    return sections
