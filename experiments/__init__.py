"""One experiment per table or figure of the paper: `python -m experiments.NAME COMMAND`."""

import importlib.util
import sys

EXTRA = ("grain", "matplotlib", "numba", "tensorboardX", "tyro")
"""The packages of `mdm_jax[experiments]`. A missing one is reported before anything else is imported."""

_missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
if _missing:
    sys.stderr.write(f"error: {', '.join(_missing)} missing: pip install -e '.[experiments]', in mdm_jax's folder\n")
    sys.exit(2)
