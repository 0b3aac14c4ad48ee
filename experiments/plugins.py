"""Modules of the user's own that the command line names."""

import importlib
import types
from collections.abc import Sequence

from mdm_jax.errors import InputError

PLUGIN = (
    "--plugin package.module imports a module of yours first. It may add to mdm_jax.models.presets.PRESETS, to "
    "mdm_jax.oracles.ORACLES, and kinds of network by mdm_jax.models.kinds.register."
)
"""What every --help says beside the flags."""


def import_plugins(argv: Sequence[str]) -> list[str]:
    """Imports the modules that `--plugin` names, from where Python looks for modules; the other words."""
    rest, words = [], iter(argv)
    for word in words:
        flag, equals, name = word.partition("=")
        if flag != "--plugin":
            rest.append(word)
            continue
        name = name if equals else next(words, "")
        if not name or name.startswith("-"):
            raise InputError("--plugin wants the name of a module, package.module")
        import_of_the_user(name, f"--plugin {name}")
    return rest


def import_of_the_user(name: str, what: str) -> types.ModuleType:
    """A module that the command line names, from the current folder, PYTHONPATH, or what is installed.

    Raises:
      InputError: it cannot be imported; `what` says what it was for.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        raise InputError(f"cannot import {what}: {type(error).__name__}: {error}") from error
