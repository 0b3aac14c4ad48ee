"""Finds the oracle that a flag names."""

import importlib
from typing import Any

from mdm_jax.errors import InputError, shown
from mdm_jax.oracles import ORACLES
from mdm_jax.typing import Oracle


def oracle_named(name: str) -> Oracle:
    """The library's oracle of that name, or the user's own oracle, named as package.module:function.

    Python finds the module in the current folder, in PYTHONPATH or among the installed packages.

    Raises:
      InputError: no oracle has that name, its module cannot be imported, or it is not callable.
    """
    if name in ORACLES:
        return ORACLES[name]
    module_name, colon, function = name.partition(":")
    if not (colon and module_name and function):
        known = ", ".join(ORACLES)
        raise InputError(f"unknown oracle {shown(name)}; choose from {known}, or give package.module:function")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise InputError(f"cannot import the oracle {shown(name)}: {type(error).__name__}: {error}") from error
    if not hasattr(module, function):
        raise InputError(f"cannot use the oracle {shown(name)}: its module holds no {shown(function)}")
    found: Any = getattr(module, function)
    if not callable(found):
        raise InputError(f"cannot use the oracle {shown(name)}: it is no function (key, confidence) -> scores")
    oracle: Oracle = found
    return oracle
