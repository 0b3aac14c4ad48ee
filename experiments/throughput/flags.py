"""The flags of the throughput commands. What they do is imported when one runs, so that `--help` answers at once."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mdm_jax.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Time sampling per oracle against the bare network, in alternating turns."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets, with random weights"""
    layers: int | None = None
    """shrink it to so many layers; what is measured is not that model any more, and the rows say so"""
    width: int | None = None
    """and to this width, heads and MLP in proportion"""
    batch: str = "32"
    """sequences at a time, several with commas"""
    length: int | None = None
    """tokens per sequence (None: 81 for the Sudoku presets; else the longest, or 1,024)"""
    prompt: str = "0"
    """tokens of each sequence that are given; they never count as generated. LEAST:MOST spreads them over the batch, so
    that some sequences are finished long before the others"""
    oracle: str | None = None
    """orders to measure, with commas (None: all of them)"""
    selector: str = "top_k:16"
    """how many to reveal in a step, several with commas: per_step:K, top_k:STEPS, binomial:STEPS, threshold:SCORE,
    entropy_budget:NATS"""
    block_length: int | None = None
    """open only the leftmost block of this length that holds a mask"""
    logits: Literal["open", "all"] = "open"
    """make logits of open positions, some at a time, or of all positions at once, as samplers did before"""
    compute: Literal["open", "all"] = "open"
    """compute of the network what open positions need, or all of it, as the bare network does: then the overhead is
    that of choosing alone"""
    keep: Literal["dual", "prefix"] | None = None
    """in blocks: keep keys and values between a block's steps, an approximation"""
    temperature: str = "0,1"
    """of the tokens, several with commas"""
    turns: int = 7
    """pairs of turns: the bare network, then the sampler"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """what matrix products multiply in, and what the parameters are in"""
    compare: Literal["torch"] | None = None
    """time PyTorch with the same weights too (pip install torch), as users run it and at its best"""
    seed: int = 0
    """of parameters, tokens and draws"""
    out: pathlib.Path = pathlib.Path("runs/throughput-run")
    """folder of results.json, table.md and overhead.png"""

    def config(self) -> "TransformerConfig":
        """The network that is measured."""
        from mdm_jax.models import presets

        preset = presets.get(self.model)
        width = self.width or preset.width
        heads = max(width // preset.head_width, 1)
        changes: dict[str, Any] = {"num_layers": self.layers or preset.num_layers, "width": width, "num_heads": heads}
        changes["num_kv_heads"] = (
            None if preset.num_kv_heads is None else max(heads * preset.kv_heads // preset.num_heads, 1)
        )
        changes["mlp_width"] = max(preset.mlp_width * width // preset.width, 1)
        changes["max_length"] = max(preset.max_length, self.length or 0)
        return dataclasses.replace(preset, dtype=self.dtype, param_dtype=self.dtype, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Time a process up to its first tokens, with nothing in the cache of compiled programs, and then from it."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets, with random weights"""
    layers: int | None = None
    """shrink it to so many layers"""
    width: int | None = None
    """and to this width"""
    batch: int = 1
    """sequences"""
    length: int | None = None
    """tokens per sequence (None: as `run`)"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """what matrix products multiply in, and what the parameters are in"""
    seed: int = 0
    """of parameters and tokens"""
    out: pathlib.Path = pathlib.Path("runs/throughput-start")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """What is trained: random tokens, of which none is given."""

    model: str = "sudoku_6m"
    """a preset of mdm_jax.models.presets"""
    batch: int = 32
    """sequences per step"""
    length: int = 81
    """tokens per sequence"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """what matrix products multiply in"""
    seed: int = 0
    """of parameters, tokens and masks"""

    def config(self, **changes: Any) -> "TransformerConfig":
        """The preset, for sequences of this length."""
        from mdm_jax.models import presets

        preset = presets.get(self.model)
        length = max(self.length, preset.max_length)
        return dataclasses.replace(preset, **{"dtype": self.dtype, "max_length": length, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop(TrainingFlags):
    """Time the training loop against the bare jitted step, in alternating turns."""

    steps: int = 20
    """steps in a turn"""
    turns: int = 7
    """turns of each"""
    out: pathlib.Path = pathlib.Path("runs/throughput-loop")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory(TrainingFlags):
    """Compile the training step in six ways and ask the compiler what memory each needs; nothing is run."""

    topology: str | None = None
    """compile for a chip of this TPU slice, such as v5p:2x2x1, which takes the libtpu wheel but no TPU; None: for what
    is here. XLA's CPU backend saves nothing by recomputation: it orders operations without regard to memory"""
    out: pathlib.Path = pathlib.Path("runs/throughput-memory")
    """folder of results.json"""
