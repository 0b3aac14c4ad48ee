"""The fuzzing command: `python -m pytest -m slow -n 0 -s tests/test_fuzz.py`, with `-k files` and so on for one family.

FUZZ_CASES=300 runs so many of each family; FUZZ_SEED=1 runs others. Every violation is printed with its case.
"""

import collections
import os
import pathlib
import subprocess
import sys

import pytest
from commands import ENV

COUNTS = {"files": 3000, "folders": 200, "flags": 1500, "library": 1000}
PROGRAM = pathlib.Path(__file__).with_name("fuzz.py")


def run(family, first, count, folder):
    """Runs cases; for each that was begun, its verdict and name."""
    command = [sys.executable, PROGRAM, family, first, count, os.environ.get("FUZZ_SEED", 0), folder]
    environment = ENV | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        number, verdict, name = line.split("\t")
        found[int(number)] = verdict.replace("begun", f"the process ended with {done.returncode}, or stood still"), name
    assert found, done.stderr[-2000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", COUNTS)
def test_malformed_input_is_refused_in_one_line_and_nothing_hangs(family, tmp_path):
    count = int(os.environ.get("FUZZ_CASES", COUNTS[family]))
    found = {}
    while len(found) < count:  # again behind a case that ended the process
        found |= run(family, len(found), count, tmp_path / "fuzz")
    counts = collections.Counter(verdict for verdict, _ in found.values() if verdict in ("refused", "passed"))
    wrong = {number: case for number, case in found.items() if case[0] not in counts}
    print(f"\n{family}: {count} cases, {counts['refused']} refused, {counts['passed']} passed, {len(wrong)} wrong")
    for number, (verdict, name) in wrong.items():
        print(f"{family} {number}: {verdict}: {name}")
    assert not wrong
    assert counts["refused"] > count / 4
