"""What one table says of a family of models: its settings and its tensors, there and here, in both directions."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdm_jax.errors import InputError, shown
from mdm_jax.models.config import TransformerConfig
from mdm_jax.ranges import INT32, Range, check_number

REQUIRED = object()
"""The default of a setting that every config.json has."""

GENERIC = """
    architectures auto_map bos_token_id chunk_size_feed_forward cls_token_id dtype eos_token_id
    finetuning_task gradient_checkpointing id2label initializer_range label2id mask_token_id model_type
    output_attentions output_hidden_states output_past pad_token_id prefix problem_type return_dict sep_token_id
    task_specific_params tokenizer_class torch_dtype torchscript transformers_version unk_token_id use_cache"""
"""Fields that speak of files, tokens, training and generation, whatever the model is; others begin with "_"."""


class Setting(NamedTuple):
    """One field of config.json with the same value here.

    Attributes:
      ours: the field of the config.
      theirs: its name in config.json.
      default: its value where config.json is silent.
    """

    ours: str
    theirs: str
    default: Any = REQUIRED


class Fixed(NamedTuple):
    """One field of config.json that is computed here for some of its values only.

    Attributes:
      values: those; the first is written.
      default: its value where config.json is silent; None for the first.
    """

    values: tuple[Any, ...]
    default: Any = None


class Tensor(NamedTuple):
    """One tensor of theirs that is one of ours, or holds it among others.

    Attributes:
      theirs: its name; within a layer, what stands behind the layer's prefix. With {e} in it, ours is a stack of as
        many of theirs as it has along its first axis.
      turned: whether it is [out, in], as a Linear of PyTorch is, where ours is [in, out].
      part: which of queries, keys and values (0, 1, 2) ours is, where theirs holds all three; None for the whole.
    """

    theirs: str
    turned: bool = False
    part: int | None = None

    @property
    def is_stacked(self) -> bool:
        """Whether ours is a stack of several of theirs."""
        return "{e}" in self.theirs

    def names(self, shape: tuple[int, ...]) -> list[str]:
        """Of theirs, for ours of this shape."""
        if self.is_stacked:
            return [self.theirs.replace("{e}", str(e)) for e in range(shape[0])]
        return [self.theirs]


def whole(fields: dict[str, Any], name: str, default: int | None = None) -> Any:
    """Takes out a field that is a positive whole number, or None where it is silent and so is the default."""
    value = fields.pop(name, None)
    if value is not None:
        check_number(name, value, Range(1, INT32), whole=True)
    return default if value is None else value


def linear(theirs: str, part: int | None = None) -> Tensor:
    """The weight of a Linear of PyTorch."""
    return Tensor(theirs, turned=True, part=part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models, as transformers or its authors' code writes it to a folder.

    Attributes:
      name: `model_type` in config.json.
      mark: a field that tells its config.json from that of another family of this name; None for no other.
      architecture: the class that opens it.
      make: the class of the config, which is of a kind of network.
      settings: fields of config.json that are fields of the config.
      fixed: fields of config.json that are computed here for some of their values.
      ours: fields of the config that are always so.
      read: takes further fields of config.json out of a dict; fields of the config.
      write: the inverse: from the config, further fields of config.json.
      passed_over: fields of config.json, beyond `GENERIC`, that say nothing of the network; blanks between them.
      layer: the prefix of a layer's tensors, with {i} for its number.
      tensors: ours -> theirs; in a layer, without the layer's prefix. A bias is called as the kernel or scale beside
        it, with `bias` for `weight`, unless it has a row of its own.
      skipped: a pattern of further tensors that may be there and hold no parameter.
      canonical: makes a tensor's name that of the table, for files that call it otherwise.
      interleaved: whether queries, keys and values that lie in one tensor are stored head of keys by head of keys.
    """

    name: str
    mark: str | None = None
    architecture: str
    make: type[TransformerConfig] = TransformerConfig
    settings: tuple[Setting, ...]
    fixed: Mapping[str, Fixed]
    ours: Mapping[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]] = lambda fields: {}
    write: Callable[[TransformerConfig], dict[str, Any]] = lambda config: {}
    passed_over: str = ""
    layer: str
    tensors: Mapping[str, Tensor]
    skipped: str = "$^"
    canonical: Callable[[str], str] = str
    interleaved: bool = False

    def config(self, fields: Mapping[str, Any]) -> TransformerConfig:
        """The config of what config.json describes.

        Raises:
          InputError: a field is missing, or says something that is not computed here, or has no meaning here.
        """
        passed_over = {*GENERIC.split(), *self.passed_over.split()}
        left = {name: value for name, value in fields.items() if name not in passed_over}
        found = dict(self.ours)
        for ours, theirs, default in self.settings:
            value = left.pop(theirs, None)
            found[ours] = default if value is None else value
            if found[ours] is REQUIRED:
                raise InputError(f"{theirs} is missing: it is no config.json of a {self.name} model")
        for theirs, (values, default) in self.fixed.items():
            value = left.pop(theirs, None)
            value = (values[0] if default is None else default) if value is None else value
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values):
                known = " or ".join(map(repr, values))
                raise InputError(f"{theirs} = {shown(value)} is not supported for {self.name} models, only {known}")
        found |= self.read(left)
        for theirs, value in left.items():
            if value is not None and not theirs.startswith("_"):
                raise InputError(f"{theirs} = {shown(value)} is not supported for {self.name} models")
        return self.make(**found)

    def fields(self, config: TransformerConfig) -> dict[str, Any]:
        """The inverse of `config`: what config.json says of a model."""
        known = {theirs: fixed.values[0] for theirs, fixed in self.fixed.items()}
        known |= {setting.theirs: getattr(config, setting.ours) for setting in self.settings}
        return {"architectures": [self.architecture], "model_type": self.name} | known | self.write(config)

    def tensor(self, name: str) -> Tensor:
        """Theirs for the parameter `name` of ours."""
        within = re.fullmatch(r"layers_(\d+)/(.*)", name)
        prefix, rest = (self.layer.format(i=within[1]), within[2]) if within else ("", name)
        if rest not in self.tensors and rest.endswith("/bias"):
            beside = next(
                self.tensors[key] for kind in ("kernel", "scale") if (key := rest[:-4] + kind) in self.tensors
            )
            row = Tensor(beside.theirs.removesuffix("weight") + "bias", part=beside.part)
        else:
            row = self.tensors[rest]
        return row._replace(theirs=prefix + row.theirs)
