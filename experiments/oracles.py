"""Finds the oracle that a flag names."""

from typing import Any

from experiments.plugins import import_of_the_user
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
    module = import_of_the_user(module_name, f"the oracle {shown(name)}")
    if not hasattr(module, function):
        raise InputError(f"cannot use the oracle {shown(name)}: its module holds no {shown(function)}")
    found: Any = getattr(module, function)
    if not callable(found):
        raise InputError(f"cannot use the oracle {shown(name)}: it is no function (key, confidence) -> scores")
    oracle: Oracle = found
    return oracle
