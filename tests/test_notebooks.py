"""The notebooks run from top to bottom, and were saved with the lines that they print, whose numbers may differ."""

import json
import pathlib
import re

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_was_saved_with_what_it_prints(path, capsys):
    names = {"__name__": path.stem}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
            saved = "".join("".join(output["text"]) for output in cell["outputs"])
            printed = capsys.readouterr().out
            assert re.sub(r"[\d.]+", "0", printed) == re.sub(r"[\d.]+", "0", saved), f"cell {number}"
