"""What a device computes beside what the CPU computes: on a CPU all of it holds, and what does not is an error."""

import json

import numpy as np
import pytest

from experiments import parity_checks
from experiments.common import main
from experiments.parity import COMMANDS, Check
from mdm_jax.errors import RunError


def test_error_is_relative_over_all_leaves_and_never_hides_what_is_no_number():
    reference = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    found = {"a": np.array([3.0, 0.3]), "b": np.array([[4.4]])}
    assert parity_checks.relative_error(found, reference) == pytest.approx(0.1)
    row = parity_checks.at_most(
        "logits", parity_checks.relative_error({"a": np.array([np.nan])}, {"a": np.ones(1)}), 1.0
    )
    assert not row["holds"]


def test_what_does_not_hold_is_an_error_with_its_name_and_the_rows_are_kept(tmp_path, monkeypatch):
    def rows_alone(flags):
        yield parity_checks.at_least("tokens of rows alone", 0.5, 0.99)

    for name in ("networks", "plain_loop", "shipped", "repeated_step"):
        monkeypatch.setattr(parity_checks, name, lambda flags: iter([parity_checks.at_most("logits", 0.0, 1e-4)]))
    monkeypatch.setattr(parity_checks, "rows_alone", rows_alone)
    with pytest.raises(RunError, match="1 of 5 comparisons do not hold: tokens of rows alone"):
        parity_checks.check(Check(out=tmp_path))
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["holds"] for row in rows] == [True, False, True, True, True]


@pytest.mark.slow
def test_a_cpu_computes_what_it_computes(tmp_path):
    main("parity", "", COMMANDS, ["--scale", "smoke", "--limit", "2", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert len(rows) == 16
    assert all(row["holds"] for row in rows)
    assert all(row["found"] == 0 for row in rows if "float32" in row["what"])
    assert all(row["found"] > 0 for row in rows if "bfloat16" in row["what"]), "another dtype is another computation"
