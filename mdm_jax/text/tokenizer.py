"""A tokenizer.json with what lies beside it: special tokens, and the chat template. The one home of both libraries."""

import dataclasses
import datetime
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdm_jax.errors import InputError, of_extra, shown
from mdm_jax.files import local_path, make_folder, read_bytes, read_json, write_whole

FILE = "tokenizer.json"
BESIDE = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
"""What lies beside it in a folder, and is read here."""
MOST = 1 << 28
"""Bytes of a tokenizer.json; those of 256,000 tokens have 34 million."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back."""

    backend: Any
    """of the `tokenizers` library"""
    place: pathlib.Path
    """the file"""
    special: Mapping[str, str]
    """the special tokens that its folder names, such as bos_token"""
    template: str | None
    """the chat template, if there is one"""
    mask_id: int | None
    """the mask token's id, if the folder says it"""
    end_ids: tuple[int, ...]
    """ids of the tokens that end a text, as the folder says, the one called eos_token first"""

    @functools.cached_property
    def num_tokens(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @functools.cached_property
    def start(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts in front of every text."""
        found = self.backend.encode("a")
        placed = zip(found.ids, found.special_tokens_mask, strict=True)
        return tuple(number for number, _ in itertools.takewhile(lambda pair: pair[1], placed))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; `special` puts `start` in front. What a tokenizer puts behind texts stands behind none."""
        try:
            ids = self.backend.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises bare ones
            raise InputError(f"{self.place} cannot encode {shown(text)}: {error}") from None
        return [*self.start, *ids] if special else list(ids)

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts with nothing around them, in which the name of a special token is text as any other."""
        self.backend.encode_special_tokens = True
        try:
            return [found.ids for found in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        except Exception as error:  # the library raises bare ones
            raise InputError(f"{self.place} cannot encode {shown(texts)}: {error}") from None
        finally:
            self.backend.encode_special_tokens = False

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids, without special tokens; an id that it does not know is nothing."""
        text: str = self.backend.decode([int(number) for number in ids if number >= 0], skip_special_tokens=True)
        return text

    def behind(self, before: Sequence[int] | np.ndarray, ids: Sequence[int] | np.ndarray) -> str:
        """What `ids` add to the text of `before`: a blank at the start stays, which decoding them alone may lose."""
        start, whole = self.decode(before), self.decode([*before, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of a conversation, up to where the answer begins.

        Raises:
          InputError: there is no template, a message is none, or the template fails.
        """
        if self.template is None:
            raise InputError(f"{self.place.parent} has no chat template: give the prompt as text")
        if not messages or not all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in messages):
            raise InputError(f"a conversation is messages with role and content, got {shown(messages)}")
        return self.encode(rendered(self.template, messages, self.special, self.place.parent), special=False)


def read_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a tokenizer.json, or the one in a folder, and what its folder says of special tokens.

    Raises:
      InputError: there is none, or one of the files cannot be read; MissingExtraError without `tokenizers`.
    """
    place = local_path(path)
    if os.path.isdir(place):
        place = place / FILE
    data, folder = read_bytes(place, most=MOST), place.parent
    with of_extra("text"):
        import tokenizers
    try:
        backend = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare ones
        raise InputError(f"{place} cannot be read as a tokenizer: {error}") from None
    backend.no_padding()
    backend.no_truncation()
    settings = _fields(folder / "tokenizer_config.json")
    special = {name: text for name, value in settings.items() if name.endswith("_token") if (text := _content(value))}
    model, generation = _fields(folder / "config.json"), _fields(folder / "generation_config.json")
    named = backend.token_to_id(special["mask_token"]) if "mask_token" in special else None
    ends: list[Any] = [backend.token_to_id(special["eos_token"])] if "eos_token" in special else []
    for fields in (model, generation):
        found = fields.get("eos_token_id")
        ends += found if isinstance(found, list) else [found]
    return Tokenizer(
        backend,
        place,
        special,
        _template(folder, settings),
        model["mask_token_id"] if _is_id(model.get("mask_token_id")) else named,
        tuple(dict.fromkeys(number for number in ends if _is_id(number))),
    )


def copy_tokenizer(words: Tokenizer, folder: pathlib.Path) -> None:
    """Copies a tokenizer's file, and what lies beside it, to the folder of a model that uses it."""
    names = {FILE: words.place, **{name: words.place.parent / name for name in BESIDE}}
    for name, path in names.items():
        if path.exists():
            write_whole(make_folder(folder) / name, read_bytes(path, most=MOST))


def write_tokenizer(words: Tokenizer, folder: pathlib.Path, *, start_id: int | None) -> None:
    """Writes a tokenizer that puts a start in front of every text, or nothing, whatever it puts around texts now.

    Args:
      words: the tokenizer.
      folder: to write to, with what lies beside the tokenizer.
      start_id: the id of the start, which need not be one of the tokenizer's.
    """
    with of_extra("text"):
        from tokenizers import Tokenizer as Backend
        from tokenizers.processors import TemplateProcessing
    backend, start = Backend.from_str(words.backend.to_str()), "<|start|>"
    backend.post_processor = None
    if start_id is not None:
        backend.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, start_id)])
    copy_tokenizer(words, folder)
    write_whole(folder / FILE, backend.to_str(pretty=True))


def _fields(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file."""
    value = read_json(path, "settings") if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _content(value: Any) -> str | None:
    """A special token, which is text or an object that holds it."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _template(folder: pathlib.Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: of a file of its own, or of the settings, where one of several is the default."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return read_bytes(own, most=1 << 24).decode("utf-8", "replace")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("default")
    return found if isinstance(found, str) else None


def rendered(
    template: str, messages: Sequence[Mapping[str, Any]], special: Mapping[str, str], folder: pathlib.Path
) -> str:
    """The text of a conversation by a template, in a sandbox: templates come with weights, from anywhere."""
    with of_extra("text"):
        import jinja2
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    class Generation(Extension):
        """{% generation %} ... {% endgeneration %}, by which templates mark what is trained on: its text as it is."""

        tags = {"generation"}  # noqa: RUF012 (the library's)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.datetime.now().strftime(form),
    }
    try:
        return environment.from_string(template).render(
            messages=[dict(message) for message in messages], add_generation_prompt=True, **special
        )
    except Exception as error:  # whatever the template does
        raise InputError(f"the chat template of {folder} fails: {type(error).__name__}: {error}") from None
