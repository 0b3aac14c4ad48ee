"""The one table of benchmarks: how each is asked and answered, and where that is from."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mdm_jax.errors import InputError, shown
from mdm_jax.tasks.language.benchmark import Benchmark
from mdm_jax.tasks.language.competition_math import CompetitionMath
from mdm_jax.tasks.language.gsm8k import GSM8K
from mdm_jax.tasks.language.human_eval import HumanEval, Infilling
from mdm_jax.tasks.language.mmlu import MMLU
from mdm_jax.tasks.language.roc_stories import RocStories

PAPER = {
    "HumanEval single-line": {"random": 0.318, "top_prob": 0.329, "margin": 0.335},
    "HumanEval multi-line": {"random": 0.165, "top_prob": 0.208, "margin": 0.254},
    "HumanEval split": {"random": 0.142, "top_prob": 0.184, "margin": 0.223},
    "Math": {"random": 0.285, "top_prob": 0.313, "margin": 0.343},
    "MMLU": {"random": 0.332, "top_prob": 0.365, "margin": 0.354},
    "ROCStories": {"random": 0.2123, "top_prob": 0.2110, "margin": 0.2141},
}
"""Table 4 of Kim et al. 2025, of LLaDA-8B, by order; what it calls vanilla is `random`."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a benchmark is asked and answered."""

    benchmark: Benchmark
    source: str
    """where the settings are from"""
    num_new: int | None = None
    """tokens of an answer; None: those of the hole, or a choice"""
    block_length: int | None = None
    """blocks in which an answer is decoded, from its start; None: all positions are open"""
    shots: int = 0
    """examples in the prompt"""
    stop: tuple[str, ...] = ()
    """texts at which an answer is cut off"""
    end: Literal["free", "never", "last"] = "free"
    """tokens that end the text: as they come, never predicted, or revealed after all others"""
    column: str | None = None
    """the column of Table 4"""
    programs: bool = False
    """whether answers are programs, which run in the sandbox"""
    mathematics: bool = False
    """whether answers are compared by math-verify"""


INFILLING = "paper, D.3: all masks open, as many as the span has tokens; Bavarian et al. 2022"
LLADA_BASE = "LLaDA's EVAL.md for the base model: steps = length = block"
LLADA_INSTRUCT = "LLaDA's EVAL.md for the instruction-tuned model"
AT_DEFINITIONS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
AT_QUESTIONS = ("Question:", "</s>", "<|im_end|>")


def _infilling(kind: str, column: str | None) -> Settings:
    file = f"HumanEval-{kind}Infilling"
    suffix = "Light" * (column is None)
    benchmark = Infilling(files=(f"{file}{suffix}.jsonl.gz", f"{file}{suffix}.jsonl"))
    return Settings(benchmark, INFILLING, column=column, programs=True)


TABLE: Mapping[str, Settings] = {
    "humaneval-single": _infilling("SingleLine", "HumanEval single-line"),
    "humaneval-multi": _infilling("MultiLine", "HumanEval multi-line"),
    "humaneval-span": _infilling("RandomSpan", "HumanEval split"),
    "humaneval-span-light": _infilling("RandomSpan", None),
    "humaneval": Settings(HumanEval(), LLADA_BASE, num_new=1024, stop=AT_DEFINITIONS, programs=True),
    "gsm8k": Settings(GSM8K(), LLADA_BASE, num_new=1024, shots=5, stop=AT_QUESTIONS, mathematics=True),
    "gsm8k-instruct": Settings(
        GSM8K(chat=True), LLADA_INSTRUCT, num_new=256, block_length=8, end="last", mathematics=True
    ),
    "math": Settings(
        CompetitionMath(), LLADA_BASE, num_new=1024, shots=4, stop=("Problem:",), column="Math", mathematics=True
    ),
    "math-instruct": Settings(
        CompetitionMath(chat=True),
        LLADA_INSTRUCT,
        num_new=512,
        block_length=64,
        end="last",
        column="Math",
        mathematics=True,
    ),
    "mmlu": Settings(MMLU(), LLADA_BASE + "; by likelihood, one token", shots=5, column="MMLU"),
    "rocstories": Settings(
        RocStories(), "paper, D.3; sentence 3 from the others, as in Gong et al. 2025", column="ROCStories"
    ),
}


def settings_of(name: str) -> Settings:
    """The settings of that name; InputError if there are none."""
    if name not in TABLE:
        raise InputError(f"unknown task {shown(name)}; choose from {', '.join(TABLE)}")
    return TABLE[name]
