"""Rebuilds every figure, RESULTS.md and the tables of the README from the committed results. Nothing is measured.

It takes about a minute on one CPU core.

    python -m experiments.report
    python -m experiments.report build
    python -m experiments.report build --out DIR
"""

import dataclasses
import pathlib
import sys

from experiments.common import main


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """Write OUT/docs/images, OUT/RESULTS.md and OUT/README.md."""

    out: pathlib.Path = pathlib.Path()
    """folder that is written to, by default that of the checkout, where the command is run"""


COMMANDS = {"build": (Build, "experiments.report.build:build")}

if __name__ == "__main__":
    main("report", __doc__ or "", COMMANDS, sys.argv[1:] or ["build"])
