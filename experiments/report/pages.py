"""Fills in the tables of a page. Its prose is written by hand, and stays as it is.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Where a results file is from stands between
`<!-- source: NAME -->` and `<!-- end -->`.
"""

import functools
import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from experiments.measured import FOLDER, duration, markdown, record
from experiments.report import planning_tables, sudoku_more, tables, text_tables
from experiments.report.tables import Lines
from mdm_jax.errors import InputError


def filled(text: str) -> str:
    """The page with its tables as they are measured.

    Raises:
      InputError: there is no table of that name.
    """

    def block(found: re.Match[str]) -> str:
        kind, name = found[1], found[2]
        if kind == "table" and name not in TABLES:
            raise InputError(f"there is no table {name!r}; choose from {', '.join(TABLES)}")
        content = source(name) if kind == "source" else markdown(TABLES[name]())
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    return re.sub(r"<!-- (table|source): (.+?) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def source(name: str) -> str:
    """The command, the scale, the seed, the machine and the time of a results file."""
    found = record(name)
    scale = f", scale {found['scale']}" if "scale" in found else ""
    return (
        f"`{shlex.join(found['argv'])}`{scale}, seed {found['seed']}, {_machine(found)}, "
        f"{duration(found['seconds'])}, commit {found['commit']} ([results](experiments/results/{name}.json))."
    )


def files() -> Lines:
    """A line for each results file."""
    lines = []
    for path in sorted(FOLDER.rglob("*.json")):
        found = json.loads(path.read_text())
        if isinstance(found, dict):  # else rows alone
            name = path.relative_to(FOLDER).with_suffix("").as_posix()
            line = {"file": f"[{name}](experiments/results/{name}.json)", "command": f"`{shlex.join(found['argv'])}`"}
            line |= {"scale": found.get("scale", ""), "seed": str(found["seed"]), "machine": _machine(found)}
            lines.append(line | {"time": duration(found["seconds"]), "commit": found["commit"]})
    return lines


def _machine(found: dict[str, Any]) -> str:
    return str(found.get("processor", f"{found['device'].upper()}, 2 cores"))


TABLES: dict[str, Callable[[], Lines]] = {
    "results": tables.results,
    "demo": tables.demo,
    "sudoku": tables.tables_2_and_5,
    "noise": tables.noise,
    "sudoku small": tables.sudoku_small,
    "sudoku more": sudoku_more.sudoku_more,
    "sudoku ladder": sudoku_more.sudoku_ladder,
    "sudoku slices": sudoku_more.sudoku_slices,
    "nae-sat paper": tables.table_1_paper,
    "nae-sat": tables.table_1,
    "nae-sat exact": tables.exact,
    "nae-sat schedules": planning_tables.schedules,
    "zebra": tables.table_3,
    "zebra 5x5": tables.zebra_5x5,
    "zebra riddle": tables.riddle,
    "thresholds": tables.thresholds,
    "overlaps": tables.overlaps,
    "scaling": text_tables.scaling,
    "likelihood": text_tables.likelihood,
    "learned order": functools.partial(planning_tables.learned_order, "sudoku-6m-learned-order"),
    "learned order tuned": functools.partial(planning_tables.learned_order, "sudoku-6m-learned-order-tuned"),
    "learned order gentle": functools.partial(planning_tables.learned_order, "sudoku-6m-learned-order-gentle"),
    "learned order zebra": functools.partial(planning_tables.learned_order, "zebra-learned-order"),
    "learned order nae-sat": functools.partial(
        planning_tables.learned_order, "nae_sat-learned-order", "accuracy", "tokens"
    ),
    "parallel": planning_tables.parallel,
    "symmetric": planning_tables.symmetric,
    "checked": planning_tables.checked,
    "enough": planning_tables.enough,
    "correction": planning_tables.correction,
    "correction ladder": planning_tables.correction_ladder,
    "loops": planning_tables.loops,
    "aligned": planning_tables.aligned,
    "aligned tail": planning_tables.aligned_tail,
    "likelihood early": text_tables.proxy,
    "genppl": text_tables.genppl,
    "imbalance": tables.imbalance,
    "proteins": tables.proteins,
    "costs": tables.costs,
    "torch": tables.torch,
    "language": tables.table_4,
    "files": files,
}
