"""LLaDA: the order in which a large masked model of language fills in its answers, on code, mathematics and stories.

Claim (Kim et al. 2025, Table 4, LLaDA-8B): by the margin, HumanEval infilling goes from 31.8% in random order to 33.5%
(single lines), 16.5% to 25.4% (several lines) and 14.2% to 22.3% (split), Math from 28.5% to 34.3%, MMLU from 33.2% to
35.4%, ROCStories from 21.23 to 21.41. Weights and data are the user's own, in local files: docs/llada.md.

    python -m experiments.llada show --task gsm8k --data DATA
    python -m experiments.llada evaluate --model LLaDA-8B-Base --task humaneval-single --data DATA
    python -m experiments.llada evaluate --model LLaDA-8B-Instruct --task math-instruct --data DATA --oracle margin
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from experiments.common import run
from experiments.flags import DistributedFlags
from mdm_jax.ranges import INT32, Count, NotNegative, Range, Seed

if TYPE_CHECKING:
    from mdm_jax.tasks.language.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskFlags:
    """The flags that name benchmarks."""

    task: str
    """humaneval-single, humaneval-multi, humaneval-span, humaneval-span-light, humaneval, gsm8k, gsm8k-instruct, math,
    math-instruct, mmlu, mmlu-instruct, rocstories; or several with commas"""
    data: pathlib.Path
    """folder of the files, as they are published (docs/llada.md lists their names), or the file of one task"""
    shots: Annotated[int, Range(0, INT32)] | None = None
    """examples in the prompt, of tasks that have any (None: those of the table)"""
    num_new: Count | None = None
    """tokens of a generated answer (None: those of the table)"""
    block_length: Count | None = None
    """blocks in which a generated answer is decoded (None: those of the table)"""
    seed: Seed = 0
    """of all draws"""
    out: pathlib.Path
    """folder of results.json"""

    def settings(self, name: str) -> "Settings":
        """Those of a task, as the flags change them."""
        from mdm_jax.tasks.language.settings import settings_of

        table = settings_of(name)
        changes: dict[str, Any] = {"block_length": self.block_length}
        changes |= {"shots": self.shots} if table.shots else {}
        changes |= {"num_new": self.num_new} if table.num_new is not None else {}
        return dataclasses.replace(table, **{name: value for name, value in changes.items() if value is not None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show(TaskFlags):
    """Print how tasks are asked: their settings, and the prompt and the reference of a problem."""

    number: Annotated[int, Range(0, INT32)] = 0
    """of the problem, from 0"""
    out: pathlib.Path = pathlib.Path("runs/llada-show")
    """folder of results.json"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(TaskFlags):
    """Answer the problems of tasks in several orders, and score the answers; the same command again goes on."""

    model: str
    """folder of a masked model with its tokenizer, such as LLaDA's of Hugging Face, or a run's folder"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json (None: the one in the model's folder)"""
    oracle: str = "random,top_prob,margin"
    """the orders, with commas: those of the paper (its vanilla is random), left_to_right, neg_entropy, token_prob,
    top_log_prob, log_margin, or your own as package.module:function"""
    tokens_per_step: Count = 1
    """tokens revealed in a step"""
    temperature: NotNegative = 0.0
    """of the tokens; 0 takes the likeliest"""
    end: Literal["free", "never", "last"] = "free"
    """tokens that end the text: as they come, never, or revealed after all others"""
    end_ids: tuple[Annotated[int, Range(0, INT32)], ...] = ()
    """their ids (none: as the model's folder says)"""
    mask_id: Annotated[int, Range(0, INT32)] | None = None
    """the mask token's id (None: as the model's folder says)"""
    limit: Count | None = None
    """the number of problems of each task, from the first (None: all)"""
    batch_size: Count = 8
    """problems in a batch, in each process"""
    save_every: Count = 128
    """problems between two savings"""
    fsdp: Count = 1
    """devices of each process that the parameters are sharded over"""
    tensor: Count = 1
    """devices of each process that each matrix is sharded over"""
    distributed: DistributedFlags = dataclasses.field(default_factory=DistributedFlags)
    out: pathlib.Path = pathlib.Path("runs/llada")
    """folder of results.json, the answers, and what is done so far"""


COMMANDS = {
    "show": (Show, "experiments.llada_tasks:show"),
    "evaluate": (Evaluate, "experiments.llada_evaluate:evaluate"),
}

if __name__ == "__main__":
    run("llada")
