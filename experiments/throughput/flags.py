"""The flags of the throughput commands. Importing this imports nothing heavy, so `--help` answers at once."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

from experiments.flags import resolve_dtype
from mdm_jax.errors import InputError, shown
from mdm_jax.ranges import FLOAT32, INT32, Count, Range, Seed, check_number

if TYPE_CHECKING:
    from mdm_jax.models.config import ModelConfig

Layers = Annotated[int, Range(1, 10_000)]
Width = Annotated[int, Range(1, 1 << 20)]
Turns = Annotated[int, Range(1, 100_000)]
Dtype = Literal["auto", "float32", "bfloat16"]


class Entries(NamedTuple):
    """The format of a flag that lists numbers: their type, their range, and the separator."""

    kind: Callable[[str], float]
    range: Range
    between: str = ","

    def read(self, flag: str, text: str) -> tuple[Any, ...]:
        """Parses the numbers; raises InputError for the first that is no number or out of range."""
        is_whole = self.kind is int
        try:
            values = tuple(self.kind(word) for word in text.split(self.between))
        except ValueError:
            with_what = "commas" if self.between == "," else f"{self.between!r}"
            numbers = "whole numbers" if is_whole else "numbers"
            raise InputError(f"{flag} takes {numbers} with {with_what} between them, got {shown(text)}") from None
        for value in values:
            check_number(flag, value, self.range, whole=is_whole)
        return values


LISTED = Entries(int, Range(1, INT32))
"""Numbers of things, with commas between them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Time sampling per oracle against the bare network, in alternating turns."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets, with random weights; or a trained model: the folder of a run, or the name of
    shipped weights (./NAME is a folder with the name of a preset)"""
    layers: Layers | None = None
    """shrink a preset to this many layers; the rows say that the model was changed"""
    width: Width | None = None
    """shrink a preset to this width, with heads and MLP in proportion"""
    batch: Annotated[str, LISTED] = "32"
    """sequences in a batch, several numbers with commas"""
    length: Count | None = None
    """tokens per sequence (None: 81 for the Sudoku presets; else the longest, or 1,024)"""
    prompt: Annotated[str, Entries(int, Range(0, INT32), ":")] = "0"
    """number of given tokens in each sequence, which do not count as generated. LEAST:MOST spreads the numbers over the
    batch, so some sequences are finished long before others"""
    mask_id: Annotated[int, Range(0, INT32)] | None = None
    """the mask token (None: the last row of the embedding)"""
    oracle: str | None = None
    """orders to measure, with commas (None: all of these): random, left_to_right, top_prob, margin, neg_entropy,
    token_prob, top_log_prob, log_margin, or your own as package.module:function"""
    selector: str = "top_k:16"
    """number of tokens to reveal in a step, several with commas: per_step:K, top_k:STEPS, binomial:STEPS,
    threshold:SCORE, entropy_budget:NATS"""
    block_length: Count | None = None
    """decode in blocks of this length, from the left"""
    logits: Literal["open", "all"] = "open"
    """make the logits of open positions, in chunks, or those of all positions, in one float32 array"""
    compute: Literal["open", "all"] = "open"
    """compute only what open positions need, or the whole network, as the bare network does; with all, the overhead is
    only that of choosing"""
    keep: Literal["dual"] | None = None
    """in blocks: keep keys and values between a block's steps, an approximation"""
    temperature: Annotated[str, Entries(float, Range(0, FLOAT32))] = "0,1"
    """sampling temperatures, with commas"""
    turns: Turns = 7
    """pairs of turns: the bare network, then the sampler"""
    dtype: Dtype = "auto"
    """dtype of matrix products and parameters (auto: for a preset, bfloat16 if this machine has units for it, else
    float32; for a trained model, its own)"""
    compare: Literal["torch"] | None = None
    """also time PyTorch with the same weights (pip install torch), as users run it and at its best"""
    seed: Seed = 0
    """of parameters, tokens and draws"""
    out: pathlib.Path = pathlib.Path("runs/throughput-run")
    """folder of results.json, table.md and overhead.png"""

    def numbers(self, name: str) -> tuple[Any, ...]:
        """The numbers that a flag lists."""
        (entries,) = get_type_hints(Run, include_extras=True)[name].__metadata__
        values: tuple[Any, ...] = entries.read("--" + name, getattr(self, name))
        return values

    def config(self) -> "ModelConfig":
        """The network that is measured."""
        config, folder = model_called(self.model)
        if folder is not None:
            return self._trained(config)
        dtype = resolve_dtype(self.dtype)
        changes: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype}
        changes["max_length"] = max(config.max_length, self.length or 0)
        return dataclasses.replace(self._shrunken(config), **changes)

    def _shrunken(self, config: "ModelConfig") -> "ModelConfig":
        """The preset with as many layers and the width that the flags name."""
        from mdm_jax.models.config import TransformerConfig

        if self.layers is None and self.width is None:
            return config
        if not isinstance(config, TransformerConfig):
            raise InputError("--layers and --width shrink Transformers; register a smaller preset")
        width = self.width or config.width
        heads = max(width * config.num_heads // config.width, 1)
        kv_heads = max(heads * config.kv_heads // config.num_heads, 1)
        return dataclasses.replace(
            config,
            num_layers=self.layers or config.num_layers,
            width=width,
            num_heads=heads,
            num_kv_heads=None if config.num_kv_heads is None else kv_heads,
            mlp_width=max(config.mlp_width * width // config.width, 1),
        )

    def _trained(self, config: "ModelConfig") -> "ModelConfig":
        if self.layers is not None or self.width is not None:
            raise InputError("--layers and --width shrink presets; a trained model is measured as it is")
        check_length(config, self.length)
        dtypes: dict[str, Any] = {} if self.dtype == "auto" else {"dtype": self.dtype, "param_dtype": self.dtype}
        return dataclasses.replace(config, **dtypes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Time a process up to its first tokens, with an empty cache of compiled programs and with a filled one."""

    model: str = "sudoku_6m"
    """as for `run`"""
    layers: Layers | None = None
    """shrink a preset to this many layers"""
    width: Width | None = None
    """shrink a preset to this width"""
    batch: Count = 1
    """sequences in the batch"""
    length: Count | None = None
    """tokens per sequence (None: as `run`)"""
    dtype: Dtype = "auto"
    """as for `run`"""
    seed: Seed = 0
    """of parameters and tokens"""
    out: pathlib.Path = pathlib.Path("runs/throughput-start")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """The network, and batches of random tokens without prompts."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets; or a run's folder or shipped weights, for the network with new weights"""
    batch: Count = 32
    """sequences per step"""
    length: Count = 81
    """tokens per sequence"""
    dtype: Dtype = "auto"
    """dtype of matrix products (auto: bfloat16 if the machine has units for it, else float32)"""
    seed: Seed = 0
    """of parameters, tokens and masks"""

    def config(self, dtype: str) -> "ModelConfig":
        """The network, for sequences of this length."""
        config, folder = model_called(self.model)
        if folder is not None:
            check_length(config, self.length)
        changes: dict[str, Any] = {"dtype": dtype, "max_length": max(self.length, config.max_length)}
        return dataclasses.replace(config, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop(TrainingFlags):
    """Time the training loop against the bare jitted step, and losses against one another, in alternating turns."""

    loss: str = "plain"
    """losses to time, with commas, by the names of `train --loss`. `of_the_first` is a bare step's time beside
    that of the first loss"""
    steps: Annotated[int, Range(2, 10_000_000)] = 20
    """steps in a turn"""
    turns: Turns = 7
    """turns of each"""
    out: pathlib.Path = pathlib.Path("runs/throughput-loop")
    """folder of results.json"""

    def losses(self) -> list[str]:
        """The names that the flag lists."""
        from mdm_jax.data.checks import lookup
        from mdm_jax.training.objectives import NAMED

        known = {name: name for name in ("plain", *NAMED)}
        return [lookup("loss", known, name) for name in self.loss.split(",")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory(TrainingFlags):
    """Compile six forms of the training step and report the memory that each needs; nothing is run."""

    topology: str | None = None
    """compile for a chip of this TPU slice, such as v5p:2x2x1, which needs the libtpu wheel but no TPU (None: for this
    machine). On the CPU recomputation saves no memory, since XLA orders operations there without regard to memory"""
    out: pathlib.Path = pathlib.Path("runs/throughput-memory")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards(TrainingFlags):
    """Compile the sampler for several numbers of devices and report the memory that each needs; nothing is run."""

    model: str = "llada_8b"
    """as for `run`"""
    batch: Count = 1
    """sequences in the batch"""
    length: Count = 1024
    """tokens per sequence"""
    devices: Annotated[str, LISTED] = "1,2,4,8"
    """numbers of devices, with commas"""
    topology: str | None = None
    """as for `memory`, with as many chips as the largest number of devices"""
    out: pathlib.Path = pathlib.Path("runs/throughput-shards")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs(TrainingFlags):
    """Compile the training step and every sampler; report memory and what an accelerator is slow at; nothing is run."""

    block_length: Count = 32
    """of the samplers that decode in blocks"""
    topology: str | None = None
    """as for `memory`"""
    out: pathlib.Path = pathlib.Path("runs/throughput-programs")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """Write a Hugging Face folder of a preset's shapes and random weights, and time loading it and the first tokens."""

    model: str = "llada_8b"
    """a preset of mdm_jax.models.presets that a Hugging Face family has"""
    layers: Layers | None = None
    """shrink it to this many layers"""
    width: Width | None = None
    """shrink it to this width"""
    batch: Count = 1
    """sequences in the batch"""
    length: Count = 1024
    """tokens per sequence"""
    block_length: Count = 32
    """decode in blocks of this length, two tokens a step"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """of the weights and of matrix products"""
    fsdp: Count = 1
    """devices that the parameters are sharded over; a CPU pretends as many as are asked for"""
    tensor: Count = 1
    """devices that each matrix is sharded over"""
    seed: Seed = 0
    """of the weights and the draws"""
    out: pathlib.Path = pathlib.Path("runs/throughput-load")
    """folder of results.json; the weights lie in its folder `weights` while they are measured"""

    def config(self) -> "ModelConfig":
        """The network of the folder."""
        options = {name: getattr(self, name) for name in ("model", "layers", "width", "length", "dtype")}
        return Run(**options).config()


def model_called(name: str) -> "tuple[ModelConfig, pathlib.Path | None]":
    """The network of a preset, and None; or the network of a trained model, and its folder."""
    from mdm_jax.loading import run_folder
    from mdm_jax.models import kinds
    from mdm_jax.models.presets import PRESETS
    from mdm_jax.training.config import read_config

    if name in PRESETS:
        return PRESETS[name], None
    try:
        folder, _ = run_folder(name)
    except InputError as error:
        raise InputError(f"unknown preset {shown(name)} (there are {', '.join(PRESETS)}), and {error}") from None
    return kinds.from_json(read_config(folder)["model"]), folder


def check_length(config: "ModelConfig", length: int | None) -> None:
    """Raises InputError for sequences longer than a trained model takes."""
    if length is not None and length > config.max_length:
        raise InputError(f"--length must be at most {config.max_length}, the longest that this model takes")
