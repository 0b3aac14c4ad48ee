"""The flags that the evaluations of text share. Importing this imports nothing heavy."""

import dataclasses
import pathlib
from typing import Annotated

from mdm_jax.ranges import INT32, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedModelFlags:
    """The flags that name a masked model of text."""

    checkpoint: pathlib.Path
    """a run's folder of a masked model, one of its checkpoints, or a Hugging Face folder"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json (None: the one in the model's folder)"""
    mask_id: Annotated[int, Range(0, INT32)] | None = None
    """the mask token's id (None: as the model's folder says)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutFlags(MaskedModelFlags):
    """The flags that name a masked model, and rows of text that it was not trained on."""

    text: pathlib.Path | None = None
    """a text that the model was not trained on (None: the held-out rows of the run's data)"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, for the run's own"""
    length: Annotated[int, Range(2, INT32)] | None = None
    """tokens of a row (None: as many as the model takes)"""
