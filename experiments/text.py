"""Text: masked models, autoregressive models and models of other orders, trained on any corpus by one program.

Claim (Kim et al. 2025, section 3.2; SlimPajama, rows of 2,048 tokens, up to 1.5e20 FLOPs): at equal compute, a causal
model reaches the lowest validation loss on text from left to right; the further its one order is from that, the higher
the loss; and a masked model, which learns all orders, ends near a causal model of a random order.

    python -m experiments.text prepare --source books/ --held-out 0.05
    python -m experiments.text train --source books/ --held-out 0.05 --loss subset --out runs/text-mdm
    python -m experiments.text train --source books/ --held-out 0.05 --loss causal --out runs/text-arm
    python -m experiments.text train --source books/ --held-out 0.05 --loss causal --order closer --out runs/text-closer
    python -m experiments.text evaluate --checkpoint runs/text-mdm
    python -m experiments.text likelihood --checkpoint runs/text-mdm
    python -m experiments.text genppl --checkpoint runs/text-mdm --judge SmolLM2-135M
    python -m experiments.text sample --checkpoint runs/text-mdm --infill "It was [12] night"
"""

import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from experiments.commands.flags import DataFlags, ExportFlags, FitFlags
from experiments.common import run
from experiments.text_flags import GenPpl, Likelihood, Sample
from mdm_jax.errors import InputError
from mdm_jax.ranges import Count, NotNegative, Positive, Range, Seed

if TYPE_CHECKING:
    from mdm_jax.models.config import ModelConfig
    from mdm_jax.tasks.base import Layout, Task
    from mdm_jax.tasks.text.task import Text
    from mdm_jax.training.objectives import Loss

Order = Literal["identity", "much-closer", "closer", "uniform"]
"""The classes of orders of section 3.2, from left to right to any."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(DataFlags):
    """Read a corpus, cut it into rows of tokens, and write them as a tfds dataset."""

    experiment: ClassVar[str] = "text"
    source: str
    """a .txt, .jsonl (both also .gz, .zst) or .parquet file, a folder of them, a pattern such as "books/*.txt", or
    hf:NAME, hf:NAME:CONFIG, hf:NAME:CONFIG:SPLIT of the library datasets"""
    test_source: str | None = None
    """the same, of the documents held out (None: a share of the source's)"""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.01
    """the share of documents held out, each whole, by its hash"""
    length: Annotated[int, Range(2, 1 << 20)] = 256
    """tokens of a row, 2,048 in the paper"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json, or its folder (None: one is trained on the documents that are not held out)"""
    vocab: Annotated[int, Range(257, 1 << 20)] = 4096
    """the tokens of one that is trained"""
    end_token: str | None = None
    """the token that ends a document (None: what tokenizer_config.json beside the tokenizer says)"""
    packing: Literal["joined", "documents"] = "joined"
    """joined: documents one behind the other, cut into rows; documents: each document begins a row, and its last row is
    padded, so that attention stays within a document"""
    field: str = "text"
    """the field of JSON, or the column, that holds the text"""
    empty_lines: bool = False
    """end a document of a .txt file at each empty line (without it, a file is one document)"""
    workers: Count | None = None
    """processes that encode (None: up to one a core)"""
    out: pathlib.Path = pathlib.Path("runs/text-prepare")
    """folder of results.json"""

    def task(self) -> "Text":
        """The corpus that the flags name."""
        from mdm_jax.tasks.text.task import Text

        return Text(
            source=self.source,
            test_source=self.test_source,
            held_out=self.held_out,
            length=self.length,
            tokenizer=None if self.tokenizer is None else str(self.tokenizer),
            vocab=self.vocab,
            end_token=self.end_token,
            packing=self.packing,
            field=self.field,
            empty_lines=self.empty_lines,
            workers=self.workers,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Prepare, FitFlags):
    """Train a model; the same command again goes on from its newest checkpoint."""

    names: ClassVar[tuple[str, ...]] = (
        *("source", "test_source", "held_out", "length", "tokenizer", "vocab", "end_token", "packing", "field"),
        *("empty_lines", "loss", "order", "order_seed"),
    )
    loss: Literal["subset", "elbo", "order", "causal"] = "subset"
    """what training minimises. subset and elbo: a masked model's bound on the likelihood, in the form with less
    variance and in the paper's; order: a masked model's, one token of an order drawn anew for each row; causal: an
    autoregressive model's, in one order for all rows"""
    order: Order | None = None
    """of --loss order and causal. identity: from left to right; much-closer, closer: with √L and L/10 random swaps;
    uniform: any (None: uniform for order, identity for causal)"""
    order_seed: Seed = 0
    """of the one order of --loss causal"""
    model: str = "smdm_6m"
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the rows"""
    layers: Count | None = None
    """number of layers (None: the preset's)"""
    width: Count | None = None
    """width, with an MLP of four times as much (None: the preset's)"""
    heads: Count | None = None
    """attention heads (None: the preset's, or one for each 64 of a new width)"""
    positions: Literal["learned", "rope"] = "learned"
    """learned positions, as in the paper's study, or RoPE"""
    steps: Count = 10_000
    """training steps"""
    batch_size: Count = 256
    """rows per step, over all devices"""
    learning_rate: Positive = 4e-4
    """the peak learning rate, after warm-up"""
    weight_decay: NotNegative = 0.1
    """weight decay of all matrices, including embeddings and the head"""
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """AdamW's decay rate of the average of squared gradients"""
    ema_decay: Annotated[float, Range(0, below=1)] = 0.0
    """decay rate of the moving average of the parameters, which is evaluated and sampled with; 0 keeps none"""
    evaluate_limit: Count = 1_024
    """held-out rows in an evaluation, which gives held_out_loss_per_token"""
    out: pathlib.Path = pathlib.Path("runs/text")
    """folder of the run: checkpoints, metrics, tokenizer.json, results.json"""

    @property
    def order_class(self) -> Order:
        """The class of the order; InputError if the loss knows no order."""
        if self.order is not None and self.loss not in ("order", "causal"):
            raise InputError(
                f"--loss {self.loss} is over all orders: leave --order out, or take --loss order or causal"
            )
        return self.order or ("identity" if self.loss == "causal" else "uniform")

    def layout_of(self, task: "Task") -> "Layout":
        """The layout of the loss, with its order."""
        from mdm_jax.tasks.text.task import Text

        assert isinstance(task, Text)
        name = self.order_class
        if self.loss != "causal":
            return task.masked
        return dataclasses.replace(task.causal, order=fixed_order(name, self.length, self.order_seed))

    def losses(self, layout: "Layout") -> "tuple[Loss, Loss]":
        """The loss, and the same or one of the same mean with less variance."""
        from mdm_jax.draws import Order as OrderDraw
        from mdm_jax.training.objectives import NAMED, causal_loss, masked_loss

        if layout.mask_id is None:
            return causal_loss(), causal_loss()
        bound, name = masked_loss(layout.mask_id), self.order_class
        if self.loss != "order":
            return masked_loss(layout.mask_id, NAMED[self.loss]), bound
        loss = masked_loss(layout.mask_id, OrderDraw(num_swaps(name, self.length)))
        return loss, bound if name == "uniform" else loss

    def recorded(self) -> dict[str, Any]:
        """The loss, the order, the name of the prepared data, and the mask and the end that `generate` needs."""
        from mdm_jax.tasks.text.prepare import end_id_of

        task = self.task()
        known = {} if self.loss == "causal" else {"mask_token_id": task.masked.mask_id}
        if self.end_token is not None and task.words is not None:  # that of a trained tokenizer is in its folder
            known["eos_token_id"] = end_id_of(task.words, self.end_token)
        chosen = {"loss": self.loss, "order": self.order, "order_seed": self.order_seed}
        return {**chosen, "dataset": task.folder(self.data).name, **known}

    def fitted(self, config: "ModelConfig") -> "ModelConfig":
        """The network with SMDM's initialisation, and the layers, width, heads and positions of the flags."""
        from mdm_jax.models.config import TransformerConfig

        if not isinstance(config, TransformerConfig):
            raise InputError(f"--model {self.model} is no Transformer: choose another preset")
        width = self.width or config.width
        heads = self.heads or (config.num_heads if self.width is None else max(1, width // 64))
        return dataclasses.replace(
            config,
            num_layers=self.layers or config.num_layers,
            num_heads=heads,
            width=width,
            mlp_width=config.mlp_width if self.width is None else 4 * width,
            positions=self.positions,
            init_std=math.sqrt(2 / (5 * width)),
        )

    def write_beside(self, task: "Task") -> None:
        """Writes the tokenizer beside the run, so that `generate` reads text for its model.

        An autoregressive model wants its start in front of every text. A model of one order that is not from left to
        right continues no text, and gets no tokenizer.
        """
        from mdm_jax.tasks.text.task import Text
        from mdm_jax.text.tokenizer import write_tokenizer

        assert isinstance(task, Text)
        if self.loss != "causal" or self.order_class == "identity":
            start_id = task.vocab_size if self.loss == "causal" else None
            write_tokenizer(task.tokenizer_in(self.data), self.out, start_id=start_id)


def num_swaps(name: Order, length: int) -> int | None:
    """The random swaps that make an order of a class from the identity; None for a uniform order."""
    return {"identity": 0, "much-closer": math.isqrt(length), "closer": length // 10, "uniform": None}[name]


def fixed_order(name: Order, length: int, seed: int) -> tuple[int, ...] | None:
    """The one order of a class that a seed draws, [L]; None for the identity."""
    import jax

    from mdm_jax.orders import near_identity_order, uniform_order

    swaps, key = num_swaps(name, length), jax.random.key(seed)
    if swaps == 0:
        return None
    order = uniform_order(key, 1, length) if swaps is None else near_identity_order(key, 1, length, swaps)
    return tuple(order[0].tolist())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the loss of a trained model on the held-out rows, in the order that it was trained for."""

    checkpoint: pathlib.Path
    """a run's folder, or one of its checkpoints"""
    data: pathlib.Path = pathlib.Path("datasets")
    """folder of prepared data, made once and used again"""
    limit: Count | None = None
    """the number of rows, from the first (None: all)"""
    draws: Count = 1
    """sets of masks of each row, for masked models"""
    batch_size: Count = 32
    """rows in a batch"""
    seed: Seed = 0
    """of the masks"""
    out: pathlib.Path = pathlib.Path("runs/text-evaluate")
    """folder of results.json"""


COMMANDS = {
    "prepare": (Prepare, "experiments.text_commands:prepare"),
    "train": (Train, "experiments.text_commands:train"),
    "evaluate": (Evaluate, "experiments.text_commands:evaluate"),
    "likelihood": (Likelihood, "experiments.text_likelihood:likelihood"),
    "genppl": (GenPpl, "experiments.text_genppl:genppl"),
    "sample": (Sample, "experiments.text_sample:sample"),
    "export": (ExportFlags, "experiments.commands.evaluate:export"),
}

if __name__ == "__main__":
    run("text")
