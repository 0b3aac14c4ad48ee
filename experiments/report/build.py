"""`build` draws the figures, and fills in the tables of RESULTS.md and the README."""

import pathlib
from typing import Any

from experiments.common import say_written
from experiments.report.figures import FIGURES
from experiments.report.pages import filled
from mdm_jax.errors import InputError
from mdm_jax.files import make_folder, write_whole
from mdm_jax.progress import Bar

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("RESULTS.md", "README.md")


def build(flags: Any) -> None:
    """Writes all, and prints the paths."""
    if not (ROOT / "docs").is_dir():
        raise InputError(f"{ROOT} has no docs: run this in a checkout of the repository")
    texts = {page: filled((ROOT / page).read_text()) for page in PAGES}
    images = make_folder(flags.out / "docs" / "images")
    for name, draw in Bar(FIGURES.items(), desc="figures", leave=False):
        draw(images / name)
    for page, text in texts.items():
        write_whole(flags.out / page, text)
    say_written(*(images / name for name in FIGURES), *(flags.out / page for page in PAGES))
