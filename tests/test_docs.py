"""The code in the README, in docs/ and in public docstrings runs, and links lead somewhere."""

import importlib
import inspect
import pathlib
import re
import textwrap

import jax
import jax.numpy as jnp
import pytest
from commands import module_of

import mdm_jax

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_in_a_public_docstring_runs(name):
    exec(compile(EXAMPLES[name], name, "exec"), {"jax": jax, "jnp": jnp, "mdm_jax": mdm_jax})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_links_lead_to_files(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
            assert anchor in known, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("experiment", ["sudoku", "nae_sat", "zebra"])
def test_pages_show_every_command_of_an_experiment_and_no_other(experiment):
    commands = importlib.import_module(module_of(experiment)).COMMANDS
    used = set()
    for page in PAGES:
        used |= set(re.findall(rf"-m experiments\.{experiment} (\w+)", page.read_text()))
    assert used == set(commands)
