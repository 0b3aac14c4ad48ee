"""`config.json` in a run's folder: what the run is, so that the folder loads alone and takes in no other run."""

import json
import pathlib
from typing import Any

from mdm_jax.errors import InputError

FORMAT = 2
"""of a run's folder"""

OWN = {"own": True}
"""What `model` says where the network is not of this library: there is nothing to make it from."""


def write_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Writes `config.json`, whole or not at all; where one is there already, InputError unless it says the same."""
    check_config(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "config.json.part"
    part.write_text(json.dumps({"format": FORMAT, **config}, indent=1) + "\n")
    part.replace(folder / "config.json")


def check_config(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """InputError if `folder` holds a run with another config, which names what differs. It may say less."""
    if (folder / "config.json").exists():
        config = json.loads(json.dumps({"format": FORMAT, **config}))
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
    if newest != FORMAT:
        advice = "update mdm_jax" if newest > FORMAT else "use the version that wrote it, or train anew"
        raise InputError(f"{path} has format {newest}, this version reads format {FORMAT}; {advice}")
    return config
