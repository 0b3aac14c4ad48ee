"""The flags that experiments share, as frozen dataclasses; what they make is imported when it is asked for."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from mdm_jax.training.loop import LoopConfig
    from mdm_jax.training.state import OptimizerConfig
    from mdm_jax.typing import Oracle, Selector


@dataclasses.dataclass(frozen=True)
class MeshFlags:
    """How the devices are laid out; the three numbers multiply to the number of devices."""

    data: int = -1
    """copies of the model that split the batch (-1: as many as the devices allow)"""
    fsdp: int = 1
    """ways to split parameters and optimizer state"""
    tensor: int = 1
    """ways to split matrices within a layer"""

    def make(self) -> "Mesh":
        """The mesh."""
        from mdm_jax.sharding import make_mesh

        return make_mesh(self.data, self.fsdp, self.tensor)


@dataclasses.dataclass(frozen=True)
class DistributedFlags:
    """Several processes, one run. On Slurm, GKE and Cloud TPUs nothing is to be given: the environment tells."""

    coordinator: str | None = None
    """HOST:PORT of the first process, where all of them meet"""
    num_processes: int | None = None
    """how many processes the run has"""
    process_id: int | None = None
    """which of them this is, from 0"""
    timeout: float = 300.0
    """seconds to wait for the others at the start"""
    heartbeat: int = 100
    """seconds of silence after which another process counts as dead"""

    def start(self) -> None:
        """Meets the other processes, if there are any; to be called before JAX computes anything."""
        from mdm_jax.training.distributed import start

        start(self.coordinator, self.num_processes, self.process_id, timeout=self.timeout, heartbeat=self.heartbeat)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What every training shares: how much at a time, how often saved and evaluated, and where it runs."""

    steps: int = 10_000
    """training steps"""
    batch_size: int = 128
    """examples per step, over all devices"""
    accumulate: int = 1
    """parts that a batch is worked off in, one after the other, to save memory"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonal updates for the matrices between layers; each step takes longer"""
    learning_rate: float = 1e-3
    """the highest, after warm-up"""
    warmup_steps: int = 200
    """steps of linear warm-up"""
    final_fraction: float = 0.1
    """the last learning rate of the cosine, as a fraction of the highest"""
    weight_decay: float = 0.01
    """of matrices"""
    beta2: float = 0.98
    """of AdamW: the decay of its average of squared gradients"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """what matrix products multiply in: bfloat16, or float32, which is faster on CPUs without bfloat16 matrix units"""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """what the network's parameters and their gradients are in; the optimizer's own copy is float32 either way"""
    remat: bool = False
    """compute activations again in the backward pass instead of keeping them, to save memory"""
    checkpoint_every: int = 500
    """steps between checkpoints"""
    keep: int = 2
    """newest checkpoints that stay, beside the best one"""
    evaluate_every: int = 1_000
    """steps between evaluations on held-out examples"""
    best_metric: str | None = None
    """of the evaluation: keep the checkpoint where it was best (OUT/checkpoints/best)"""
    best_mode: Literal["max", "min"] = "max"
    """whether the highest or the lowest is best"""
    max_skipped: int = 20
    """stop after so many steps in a row whose loss or gradient was not finite; such steps are skipped"""
    profile: bool = False
    """write a trace of five steps for TensorBoard to OUT/profile"""
    mesh: MeshFlags = dataclasses.field(default_factory=MeshFlags)
    distributed: DistributedFlags = dataclasses.field(default_factory=DistributedFlags)
    seed: int = 0
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
            beta2=self.beta2,
        )

    def loop(self) -> "LoopConfig":
        """The loop that the flags ask for."""
        from mdm_jax.training.loop import LoopConfig

        same = {field.name for field in dataclasses.fields(LoopConfig)} & {f.name for f in dataclasses.fields(self)}
        return LoopConfig(**{name: getattr(self, name) for name in same})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleRunFlags(RunFlags):
    """What every training on puzzles shares."""

    model: str
    """a preset of mdm_jax.models.presets; its vocabulary and length are fitted to the puzzles"""
    layout: str
    """how a puzzle becomes a sequence"""
    loss: Literal["plain", "skewed", "reweighted"] = "plain"
    """the bound on the likelihood; the same with mostly large sets of masks; or Ye et al.'s re-weighting"""
    dropout: float | None = None
    """instead of the preset's"""
    init_from: pathlib.Path | None = None
    """start from these weights instead of random ones: a run's folder, a checkpoint, or shipped weights"""
    evaluate_limit: int = 128
    """held-out puzzles in an evaluation, which gives solved/random and solved/margin, or solved/greedy, and
    held_out_loss_per_token"""
    out: pathlib.Path
    """folder of the run: checkpoints, metrics, results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeFlags:
    """How a model is decoded."""

    oracle: str = "margin"
    """order to decode in, or several with commas: random, left_to_right, top_prob, margin, neg_entropy, token_prob,
    top_log_prob, log_margin, or your own as package.module:function"""
    noise: float = 0.0
    """standard deviation of Gaussian noise on the oracle's scores"""
    tokens_per_step: int | None = None
    """reveal this many per step (the default: 1)"""
    num_steps: int | None = None
    """or: reveal all in this many steps, as many in each as the linear schedule says"""
    remask_steps: int | None = None
    """or: the same, but every step reads all tokens that were not given anew and may take them back"""
    binomial_steps: int | None = None
    """or: reveal a binomial number in each of this many steps (vanilla inference, with the random oracle)"""
    threshold: float | None = None
    """or: reveal all that score at least this"""
    entropy_budget: float | None = None
    """or: reveal the longest prefix within this budget (nats)"""
    temperature: float = 0.0
    """of the tokens; 0 takes the likeliest"""
    block_length: int | None = None
    """decode block by block from the left"""
    keep: Literal["dual", "prefix"] | None = None
    """in blocks: keep the keys and values of what is outside the block, or before it, between a block's steps; faster,
    and an approximation"""

    def changed(self) -> set[str]:
        """The names of those that are not as by default: one token a step by margin, the likeliest."""
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
        from mdm_jax import Binomial, EntropyBudget, InputError, PerStep, Threshold, TopK

        made = {
            "--tokens-per-step": (PerStep, self.tokens_per_step),
            "--num-steps": (TopK, self.num_steps),
            "--remask-steps": (TopK, self.remask_steps),
            "--binomial-steps": (Binomial, self.binomial_steps),
            "--threshold": (Threshold, self.threshold),
            "--entropy-budget": (EntropyBudget, self.entropy_budget),
        }
        asked = {flag: make for flag, make in made.items() if make[1] is not None}
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} exclude each other; give one of them")
        for kind, value in asked.values():
            return kind(value)
        return PerStep(1)
