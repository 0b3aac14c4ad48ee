"""The flags that experiments share, as frozen dataclasses. Importing this imports nothing heavy."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mdm_jax.ranges import INT32, Count, Decay, NotNegative, Positive, Range, Seed, Share

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from mdm_jax.training.loop import LoopConfig
    from mdm_jax.training.state import OptimizerConfig
    from mdm_jax.typing import Oracle, Selector

Corrector = Literal["leave-one-out", "filled", "quality"]
"""The judges of `correcting_sample`, by name."""
CPU = pathlib.Path("/proc/cpuinfo")
"""The file in which Linux lists the features of the CPU."""


@dataclasses.dataclass(frozen=True)
class MeshFlags:
    """The mesh of devices. The product of the three numbers is the number of devices."""

    data: Annotated[int, Range(-1, INT32)] = -1
    """number of data-parallel replicas, which split the batch (-1: as many as the devices allow)"""
    fsdp: Count = 1
    """number of devices that parameters and optimizer state are sharded over"""
    tensor: Count = 1
    """number of devices that the matrices of a layer are sharded over"""

    def make(self) -> "Mesh":
        """The mesh."""
        from mdm_jax.sharding import make_mesh

        return make_mesh(self.data, self.fsdp, self.tensor)


@dataclasses.dataclass(frozen=True)
class DistributedFlags:
    """Several processes in one run. Slurm, GKE and Cloud TPUs need no flags: the environment has the values."""

    coordinator: str | None = None
    """HOST:PORT of the first process"""
    num_processes: Count | None = None
    """number of processes in the run"""
    process_id: Annotated[int, Range(0, INT32)] | None = None
    """index of this process, from 0"""
    timeout: Annotated[float, Range(above=0, most=1e6)] = 300.0
    """seconds to wait for the others at the start"""
    heartbeat: Annotated[int, Range(1, 1_000_000)] = 100
    """seconds of silence after which another process counts as dead"""

    def start(self) -> None:
        """Connects to the other processes, if there are any. Must run before JAX computes anything."""
        from mdm_jax.training.distributed import start

        start(self.coordinator, self.num_processes, self.process_id, timeout=self.timeout, heartbeat=self.heartbeat)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The flags of every training: the size of a step, the times of saving and evaluating, and the devices."""

    steps: Count = 10_000
    """training steps"""
    batch_size: Count = 128
    """examples per step, over all devices"""
    accumulate: Count = 1
    """number of parts of a batch that are computed one after the other, to save memory"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised updates for the matrices within layers; each step takes longer"""
    learning_rate: Positive = 1e-3
    """the peak learning rate, after warm-up"""
    warmup_steps: Annotated[int, Range(0, INT32)] | None = None
    """steps of linear warm-up, fewer than all (None: 200, or a tenth of the run if that is less)"""
    final_fraction: Share = 0.1
    """the last learning rate, as a fraction of the peak"""
    weight_decay: NotNegative = 0.01
    """weight decay of all matrices, including embeddings and the head"""
    beta1: Decay = 0.9
    """AdamW's decay rate of the average of gradients"""
    beta2: Decay = 0.98
    """AdamW's decay rate of the average of squared gradients"""
    clip_norm: Positive = 1.0
    """the largest global norm of the gradients; larger ones are scaled down to it"""
    ema_decay: Decay = 0.999
    """decay rate of the moving average of the parameters, which is evaluated and sampled with; 0 keeps none"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of matrix products; auto: bfloat16, but float32 on CPUs without bfloat16 units; a resumed run keeps its
    own"""
    param_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of the network's parameters and gradients; auto: float32, in fine-tuning that of the model; the optimizer's
    own copy is float32 in any case"""
    remat: bool = False
    """recompute activations in the backward pass instead of storing them, to save memory"""
    checkpoint_every: Count = 500
    """steps between checkpoints"""
    keep: Count = 2
    """number of newest checkpoints that are kept, beside the best one"""
    evaluate_every: Count = 1_000
    """steps between evaluations on held-out examples"""
    best_metric: str | None = None
    """keep the checkpoint with the best value of this metric of the evaluation, in OUT/checkpoints/best"""
    best_mode: Literal["max", "min"] = "max"
    """whether the highest or the lowest is best"""
    log_every: Count = 20
    """steps between lines of metrics.jsonl"""
    max_skipped: Count = 20
    """stop after this many consecutive steps with a loss or gradient that is not finite; such steps are skipped"""
    profile: bool = False
    """write a trace of five steps for TensorBoard to OUT/profile"""
    mesh: MeshFlags = dataclasses.field(default_factory=MeshFlags)
    distributed: DistributedFlags = dataclasses.field(default_factory=DistributedFlags)
    seed: Seed = 0
    """of the data, the parameters and all draws"""

    def optimizer_config(self) -> "OptimizerConfig":
        """The optimizer that the flags ask for."""
        from mdm_jax.training.state import OptimizerConfig

        return OptimizerConfig(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            num_steps=self.steps,
            warmup_steps=self.warmup_steps,
            final_fraction=self.final_fraction,
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
        )

    def loop(self) -> "LoopConfig":
        """The loop that the flags ask for."""
        from mdm_jax.training.loop import LoopConfig

        return LoopConfig(
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            evaluate_every=self.evaluate_every,
            best_metric=self.best_metric,
            best_mode=self.best_mode,
            log_every=self.log_every,
            max_skipped=self.max_skipped,
            profile=self.profile,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeFlags:
    """The flags of decoding."""

    oracle: str = "margin"
    """the order of decoding, or several with commas: random, left_to_right, top_prob, margin, neg_entropy, token_prob,
    top_log_prob, log_margin, or your own as package.module:function"""
    noise: NotNegative = 0.0
    """standard deviation of Gaussian noise on the oracle's scores"""
    tokens_per_step: Count | None = None
    """reveal this many tokens per step (the default: 1)"""
    num_steps: Count | None = None
    """or: reveal all tokens in this many steps, by the linear schedule"""
    binomial_steps: Count | None = None
    """or: reveal a binomial number of tokens in each of this many steps (vanilla inference, with the random oracle)"""
    threshold: Annotated[float, Range(infinite=True)] | None = None
    """or: reveal all tokens with at least this score"""
    entropy_budget: Annotated[float, Range(0, infinite=True)] | None = None
    """or: reveal the longest prefix, by score, within this budget (nats)"""
    klass: Share | None = None
    """or: reveal all tokens with a probability above this that have hardly changed in the last two steps (KLASS)"""
    remask_steps: Count | None = None
    """or: reveal all tokens in this many steps, each of which may also mask revealed tokens again"""
    search_width: Count | None = None
    """a beam search of this many partial answers, which branch where a second token has a probability of 0.01 or more;
    for up to as many times the calls"""
    check: Count | None = None
    """of the answers that --search-width or --proposals leave, keep the one whose tokens are likeliest given one
    another, by this many network calls for each answer"""
    corrector: Corrector | None = None
    """take tokens back that look wrong by now, up to N - 1 a step with --tokens-per-step N. leave-one-out: where others
    say so, for a call more for each token; filled, quality: for a model trained with this --loss"""
    temperature: NotNegative = 0.0
    """sampling temperature of the tokens; 0 takes the likeliest"""
    block_length: Count | None = None
    """decode block by block from the left, in blocks of this length"""
    keep: Literal["dual"] | None = None
    """in blocks: keep the keys and values of tokens outside the block between its steps; faster, an approximation"""

    def changed(self) -> set[str]:
        """The names of the flags whose values are not the defaults."""
        return {field.name for field in dataclasses.fields(DecodeFlags) if getattr(self, field.name) != field.default}

    def oracles(self) -> "dict[str, Oracle]":
        """The oracles by name."""
        from experiments.oracles import oracle_named
        from mdm_jax import oracles

        found = {name: oracle_named(name) for name in self.oracle.split(",")}
        if self.noise:
            found = {name: oracles.with_noise(oracle, self.noise) for name, oracle in found.items()}
        return found

    def selector(self) -> "Selector":
        """The selector that the flags ask for."""
        from mdm_jax import Binomial, EntropyBudget, InputError, Klass, PerStep, Threshold, TopK

        made: dict[str, tuple[Callable[[Any], Selector], Any]] = {
            "--tokens-per-step": (PerStep, self.tokens_per_step),
            "--num-steps": (TopK, self.num_steps),
            "--remask-steps": (TopK, self.remask_steps),
            "--binomial-steps": (Binomial, self.binomial_steps),
            "--threshold": (Threshold, self.threshold),
            "--entropy-budget": (EntropyBudget, self.entropy_budget),
            "--klass": (Klass, self.klass),
        }
        chosen = {flag: make for flag, make in made.items() if make[1] is not None}
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} exclude each other; give one of them")
        for kind, value in chosen.values():
            return kind(value)
        return PerStep(1)


def resolve_dtype(dtype: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """Returns the dtype of a flag. "auto" is bfloat16, which halves the memory traffic, if there are units for it.

    CPUs without such units convert to float32 and back, so a step in bfloat16 takes two to three times as long.
    """
    if dtype != "auto":
        return dtype
    import jax

    if jax.default_backend() != "cpu":
        return "bfloat16"
    try:
        units = CPU.read_text()
    except OSError:  # no Linux
        return "float32"
    return "bfloat16" if "avx512_bf16" in units or "amx_bf16" in units else "float32"
