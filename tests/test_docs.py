"""The code in the README, in docs/ and in public docstrings runs, and links lead somewhere."""

import importlib
import importlib.util
import inspect
import json
import pathlib
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from commands import module_of

import mdm_jax
from mdm_jax.errors import InputError
from mdm_jax.models.kinds import KINDS
from mdm_jax.models.presets import PRESETS
from mdm_jax.tasks.sudoku import files as sudoku_files
from mdm_jax.tasks.sudoku import formats as sudoku_formats
from mdm_jax.tasks.zebra import formats as zebra_formats

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.read_text().startswith("<!-- the page is")),
]
LINKED = [*PAGES, ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md"]


@pytest.fixture
def tables():
    """The tables that a page adds to are as before when it has run."""
    before = [(table, dict(table)) for table in (PRESETS, KINDS)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


@pytest.mark.slow
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_code_blocks_run(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks, f"{page.name} shows no code"
    for block in blocks:
        exec(compile(block, page.name, "exec"), {"__name__": page.stem})


def example_of(value):
    """The code under `Example:` in a docstring, to the next section; empty if there is none."""
    found = re.search(r"^Example:\n((?:  .*\n|\n)+)", inspect.cleandoc(value.__doc__ or "") + "\n", re.MULTILINE)
    return textwrap.dedent(found[1]) if found else ""


EXAMPLES = {name: code for name in mdm_jax.__all__ if (code := example_of(getattr(mdm_jax, name)))}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_in_a_public_docstring_runs(name):
    exec(compile(EXAMPLES[name], name, "exec"), {"jax": jax, "jnp": jnp, "mdm_jax": mdm_jax})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx_book_theme") is None, reason="the extra docs is not installed")
def test_documentation_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", ROOT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api.html").read_text()
    assert all(f'id="mdm_jax.{name}"' in page for name in ("sampling.sample", "losses.elbo_loss", "loading.load"))
    assert "solved by one masked model" in (tmp_path / "index.html").read_text()
    assert "network calls" in (tmp_path / "notebooks" / "order_matters.html").read_text()


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_page_links_lead_to_files(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
            assert anchor in known, f"{page.name} links to {target}#{anchor}"


def what_is_said(module, path):
    """The line about a file of puzzles, of which one is read."""
    try:
        return module.read_puzzles(path, limit=1).how
    except InputError as error:
        return f"error: {error}"


@pytest.mark.parametrize(
    ("name", "formats", "module"),
    [("sudoku", sudoku_formats, sudoku_files), ("zebra", zebra_formats, zebra_formats)],
)
def test_page_has_a_row_and_a_true_transcript_of_every_format(tmp_path, monkeypatch, name, formats, module):
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / f"{name}.md").read_text().split("\n## Files of puzzles\n")[1].split("\n## ")[0]
    known = [form.name for form in formats.FORMATS]
    table = section.split("\n|---|---|---|\n")[1].split("\n\n")[0]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()] == known
    shown = re.findall(r"^\$ (?:cat|head -\d+) (\S+)\n(.*?)^\$", section, re.MULTILINE | re.DOTALL)
    shown += re.findall(r"`(\S+)`:\n\n```\n(.*?)```", section, re.DOTALL)
    for path, text in shown:
        pathlib.Path(path).write_text(text)
    said = dict(re.findall(r"^\$ python .*--puzzles (\S+).*\n(.*)", section, re.MULTILINE))
    assert set(said) >= {path for path, _ in shown}
    assert {path: what_is_said(module, path) for path, _ in shown} == {path: said[path] for path, _ in shown}
    assert {form for line in said.values() for form in known if f": read as {form}" in line} == set(known)


def test_every_field_of_the_committed_results_is_explained():
    known = set()
    for page in ("results_fields.md", "text_evaluation.md", "throughput.md"):
        for line in (ROOT / "docs" / page).read_text().splitlines():
            known |= set(re.findall(r"`(\w+)`", line.split("|")[1] if line.startswith("| ") else line))
    found = set()
    for path in (ROOT / "experiments" / "results").rglob("*.json"):
        record = json.loads(path.read_text())
        if isinstance(record, dict):
            found |= set(record).union(*record["rows"])
    assert {re.sub("_(ci|range)$", "", name) for name in found} - known == set()


@pytest.mark.parametrize("experiment", ["sudoku", "nae_sat", "zebra", "llada", "text", "scaling"])
def test_pages_show_every_command_of_an_experiment_and_no_other(experiment):
    commands = importlib.import_module(module_of(experiment)).COMMANDS
    used = set()
    for page in PAGES:
        used |= set(re.findall(rf"-m experiments\.{experiment} (\w+)", page.read_text()))
    assert used == set(commands)
