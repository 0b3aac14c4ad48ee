"""Commands of the experiments, run as a user runs them, but many in one process."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).parents[1]
ENV = os.environ | {"XLA_FLAGS": re.sub(r"--xla_force_host\S*", "", os.environ.get("XLA_FLAGS", ""))}
"""One device, as on a user's machine, where the tests' own process has eight; compiled as quickly as there."""

PROGRAM = """
import dataclasses, importlib, json, os, sys, traceback
import jax
from experiments.common import main
from mdm_jax.models import presets

for name, config in presets.PRESETS.items():
    presets.PRESETS[name] = dataclasses.replace(config, num_layers=1)
answers = os.fdopen(int(sys.argv[1]), "w")
for line in sys.stdin:
    module, experiment, argv, folder = json.loads(line)
    os.chdir(folder)
    jax.config.update("jax_enable_compilation_cache", True)  # where the last command measured without
    code = 0
    try:
        found = importlib.import_module(module)
        if experiment == "mdm-jax":
            found.main(argv)
        else:
            main(experiment, "", found.COMMANDS, argv)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(code, file=answers, flush=True)
"""
"""Runs the commands that it reads. Fresh networks have one layer: compiling all of a preset's takes the most time."""


class Done(typing.NamedTuple):
    """What became of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self):
        """The lines on stderr, but for progress bars."""
        lines = self.stderr.replace("\r", "\n").splitlines()
        return [line for line in lines if line.strip() and "%|" not in line]


class Runner:
    """A process that imports and compiles once for many commands."""

    def __init__(self):
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        mine, theirs = os.pipe()
        command = [sys.executable, "-c", PROGRAM, str(theirs)]
        out, err = self._files
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=ENV | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            pass_fds=[theirs],
            text=True,
        )
        os.close(theirs)
        self.pid = self._process.pid
        self._answers = os.fdopen(mine)

    def run(self, experiment, argv, folder=ROOT):
        for file in self._files:  # their offset is the process's too
            file.seek(0)
            file.truncate()
        self._process.stdin.write(
            json.dumps([module_of(experiment), experiment, list(map(str, argv)), str(folder)]) + "\n"
        )
        self._process.stdin.flush()
        code = self._answers.readline()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
        assert code, f"the process ended: {texts[1][-2000:]}"
        return Done(int(code), *texts)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        for file in (self._answers, *self._files):
            file.close()


_runner: Runner | None = None


def close():
    """Ends the process that runs commands; the next command starts another."""
    global _runner
    if _runner is not None:
        _runner.close()
        _runner = None


def is_crowded(process="self"):
    """Whether a process holds many programs: each takes memory maps, and beyond Linux's 65,530 it crashes."""
    maps = pathlib.Path(f"/proc/{process}/maps")
    return not maps.exists() or maps.read_bytes().count(b"\n") > 20_000


def free():
    """Ends the process that runs commands once it holds many programs."""
    if _runner is not None and is_crowded(_runner.pid):
        close()


def runner():
    """The process in which commands run."""
    global _runner
    _runner = _runner or Runner()
    return _runner


def run(experiment, *argv, code=0, folder=ROOT):
    """Runs one command, in a process that runs others too; what it printed."""
    done = runner().run(experiment, argv, folder)
    assert done.code == code, done.stderr[-2000:]
    return done


def run_all(experiment, argvs):
    """Runs commands one after the other: for each, exit code, lines on stderr, and what it printed."""
    found = [runner().run(experiment, argv) for argv in argvs]
    return [(done.code, done.said, done.stdout) for done in found]


def run_alone(experiment, *argv):
    """Runs one command in a process of its own, as a shell does; what it printed."""
    command = [sys.executable, "-m", f"experiments.{experiment}", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def module_of(experiment):
    """The module that holds an experiment's table of commands; "mdm-jax" is the library's own command."""
    if experiment == "mdm-jax":
        return "mdm_jax.command_line"
    name = f"experiments.{experiment}"
    return name if importlib.util.find_spec(name).submodule_search_locations is None else f"{name}.__main__"


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


def page_of(path):
    """What a page of the viewer shows."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text())[1])


def without_orders(found):
    """Rows without the statistics of orders, which only `evaluate` has."""
    names = ("left_to_rightness", "tau_reading", "tau_rules", "relative_jump")
    names = (*names, "relative_dependence", "dependent_pairs")
    return [{name: value for name, value in row.items() if name not in names} for row in found]
