"""The documentation: `sphinx-build -W docs OUT` reads the pages, the notebooks and the docstrings."""

import json
import pathlib
import re
import sys
from typing import Any

DOCS = pathlib.Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import mdm_jax  # noqa: E402 (the checkout's)

project = "mdm_jax"
copyright = "2026, the mdm_jax authors"
release = mdm_jax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
html_theme = "sphinx_book_theme"
html_title = "mdm_jax"
html_theme_options = {"show_toc_level": 2}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings have dtypes, shapes and units
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # fields that a docstring lists stand once
suppress_warnings = ["ref.python"]  # a field's unit, such as nats, is no reference to a field of that name

PLACED = re.compile(r"<!-- the page is ../(\w+\.md) -->\n")
"""The first line of a page that another folder holds."""


def read_source(app: Any, name: str, source: list[str]) -> None:
    """Makes Markdown of a notebook, puts the README and RESULTS.md in their places, and mends links out of docs/."""
    text, folder = source[0], (DOCS / name).parent
    if (DOCS / f"{name}.ipynb").exists():
        text = "\n\n".join(map(cell, json.loads(text)["cells"]))
    if found := PLACED.match(text):
        page = (DOCS.parent / found[1]).read_text()
        page = re.sub(r"(\]\()(?!https?:|#|docs/)", r"\1../", page).replace("](docs/", "](")
        text = page + text[found.end() :]
    for path in DOCS.glob("*.md"):
        if found := PLACED.match(path.read_text()):
            text = text.replace(f"](../{found[1]})", f"]({path.name})")
    # A page cannot link to a folder.
    source[0] = re.sub(r"(?<!!)\[([^]]+)\]\(([^)#:]+)\)", lambda m: m[1] if (folder / m[2]).is_dir() else m[0], text)


def cell(found: dict[str, Any]) -> str:
    """A cell of a notebook as Markdown, with what it printed and drew."""
    text = "".join(found["source"])
    if found["cell_type"] == "markdown":
        return text
    parts = [f"```python\n{text}\n```"]
    for output in found["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})")
        else:
            parts.append(f"```text\n{''.join(output.get('text', data.get('text/plain', ''))).rstrip()}\n```")
    return "\n\n".join(parts)


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: names in backticks are code, and no other character has a meaning."""
    is_example, made = False, []
    for line in lines:
        if line and not line.startswith(" "):
            is_example = line == "Example:"
        if line == "Example:":
            made += [".. rubric:: Example", "", ".. code-block:: python", ""]
        else:
            made.append(line if is_example else plain(line))
    lines[:] = made


def plain(line: str) -> str:
    """A line without reStructuredText's markup."""
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(
        f"``{part[1:-1]}``" if i % 2 else re.sub(r"([*|\\]|_(?!\w))", r"\\\1", part) for i, part in enumerate(parts)
    )


def setup(app: Any) -> None:
    """Connects the readers."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", to_rst, priority=400)  # before napoleon reads the sections
