"""RESULTS.md, the tables of the README and the figures are what the results files say."""

import json
import pathlib
import re

import pytest
from commands import assert_refused

from experiments import measured
from experiments.report import pages
from experiments.report.build import PAGES
from experiments.report.figures import FIGURES
from experiments.sudoku_tables import plot_planning
from mdm_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
RESULTS = sorted(path for path in measured.FOLDER.rglob("*") if path.is_file())


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_what_the_results_files_say(page):
    text = (ROOT / page).read_text()
    assert pages.filled(text) == text, "python -m experiments.report brings it up to date"


def test_every_table_is_used_and_every_results_file_has_a_line():
    text = "".join((ROOT / page).read_text() for page in PAGES)
    assert set(re.findall("<!-- table: (.+?) -->", text)) == set(pages.TABLES)
    records = [path for path in RESULTS if path.suffix == ".json" and isinstance(json.loads(path.read_text()), dict)]
    assert all(f"/{path.relative_to(measured.FOLDER).as_posix()})" in text for path in records)


def test_a_changed_result_changes_the_page(tmp_path, monkeypatch):
    for path in measured.FOLDER.glob("zebra-*.json"):
        record = json.loads(path.read_text())
        for row in record["rows"]:
            row["cells"] = 0.123
        (tmp_path / path.name).write_text(json.dumps(record))
    monkeypatch.setattr(measured, "FOLDER", tmp_path)
    text = pages.filled("a\n<!-- table: zebra riddle -->\nold\n<!-- end -->\nb\n")
    assert text.startswith("a\n<!-- table: zebra riddle -->\n| order | cells right |")
    assert text.count("| 12% |") == 4
    assert text.endswith("|\n<!-- end -->\nb\n")
    assert "old" not in text


def test_unknown_table_is_refused_by_name():
    with pytest.raises(InputError, match="no table 'sudoko'; choose from results, demo"):
        pages.filled("<!-- table: sudoko -->\n<!-- end -->")


def test_every_image_is_drawn_by_the_report_and_shown_in_a_page():
    committed = {path.name for path in IMAGES.iterdir()}
    drawn = set(FIGURES) | {f"{pathlib.Path(name).stem}.svg" for name in FIGURES if name.endswith(".png")}
    assert committed == drawn
    docs = (path for pattern in ("*.md", "notebooks/*.ipynb") for path in (ROOT / "docs").glob(pattern))
    text = "".join(path.read_text() for path in (*(ROOT / page for page in PAGES), *docs))
    assert all(f"images/{name}" in text for name in FIGURES), "an image that no page shows"


def test_report_draws_a_figure_from_its_results_file(tmp_path):
    FIGURES["hardness.png"](tmp_path / "hardness.png")
    assert (tmp_path / "hardness.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "hardness.svg").read_text().startswith("<?xml")


def test_planning_figure_has_a_curve_for_each_way_to_spend_calls(tmp_path):
    def rows(solved, **way):
        return [{"nfe": nfe, "solved": solved, "solved_ci": [solved - 0.1, solved + 0.1], **way} for nfe in (57, 456)]

    ways = rows(0.3, search_width=8), rows(0.5, choose="stable"), rows(0.8, choose="symmetric")
    plot_planning(tmp_path / "a.png", *ways)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {way} -->" in text for way in ("beam search", "stable answers", "vote of symmetric forms"))
    assert "best of N" not in text


@pytest.mark.slow
def test_out_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused("report", [(["build", "--out", tmp_path / "file"], "docs/images cannot be made")])
