"""Commands of the experiments, run as a user runs them."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
ENV = os.environ | {"XLA_FLAGS": re.sub(r"--xla_force_host\S*", "", os.environ.get("XLA_FLAGS", ""))}
"""One device, as on a user's machine, where the tests' own process has eight; compiled as quickly as there."""


def run(experiment, *argv, code=0, **environment):
    """Runs one command; what it printed."""
    command = [sys.executable, "-m", f"experiments.{experiment}", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, env=ENV | environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    return done


def module_of(experiment):
    """The module that holds an experiment's table of commands."""
    name = f"experiments.{experiment}"
    return name if importlib.util.find_spec(name).submodule_search_locations is None else f"{name}.__main__"


def run_all(experiment, argvs, **environment):
    """Runs commands one after the other in one process: for each, exit code, lines on stderr, and what it printed.

    `experiment` may be "mdm-jax", the library's own command.
    """
    of_experiment = (
        "from experiments.common import main as run\n"
        "commands = importlib.import_module(sys.argv[1]).COMMANDS\n"
        "main = lambda argv: run(sys.argv[2], '', commands, argv)\n"
    )
    code = (
        "import importlib, json, sys\n"
        + ("from mdm_jax.command_line import main\n" if experiment == "mdm-jax" else of_experiment)
        + "for argv in json.loads(sys.argv[3]):\n"
        "    status = 0\n"
        "    try:\n        main(argv)\n"
        "    except SystemExit as stop:\n        status = stop.code\n"
        "    print('\\0', status, file=sys.stderr)\n"
        "    print('\\0')\n"
    )
    texts = json.dumps([[str(word) for word in argv] for argv in argvs])
    module = "" if experiment == "mdm-jax" else module_of(experiment)
    command = [sys.executable, "-c", code, module, experiment, texts]
    done = subprocess.run(command, cwd=ROOT, env=ENV | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, found = [], []
    for line in done.stderr.replace("\r", "\n").splitlines():
        if line.startswith("\0"):
            found.append((int(line[1:]), said))
            said = []
        elif line.strip() and "%|" not in line:  # no progress bar
            said.append(line)
    printed = done.stdout.split("\0\n")[:-1]
    return [(status, lines, text) for (status, lines), text in zip(found, printed, strict=True)]


def assert_refused(experiment, cases):
    """Runs each (argv, words): exit code 2, and a last line, the only one of its kind, that has the words in it."""
    found = run_all(experiment, [argv for argv, _ in cases])
    for (argv, words), (status, said, _) in zip(cases, found, strict=True):
        assert [line for line in said if line.startswith("error:")] == said[-1:], (argv, said)
        assert words in said[-1], argv
        assert status == 2, argv


def rows(folder):
    """Those of a command's results."""
    return json.loads((folder / "results.json").read_text())["rows"]


def without_times(found):
    """Rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name != "per_second"} for row in found]
