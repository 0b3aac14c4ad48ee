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
    column: str | None = None
    """the column of Table 4"""
    needs: Literal["the sandbox", "math-verify"] | None = None
    """what scores its answers"""


INFILLING = "paper, D.3: all masks open, as many as the span has tokens; Bavarian et al. 2022"
ROC_STORIES = "paper, D.3; the third sentence of five, as in Gong et al. 2025 (arXiv:2410.17891)"
LLADA_BASE = "LLaDA's EVAL.md for the base model: steps = length = block"
LLADA_INSTRUCT = "LLaDA's EVAL.md for the instruction-tuned model, in blocks"
AT_DEFINITIONS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
AT_QUESTIONS = ("Question:", "</s>", "<|im_end|>")
AT_PROBLEMS = ("Problem:",)


def _infilling(kind: str, column: str | None = None) -> Settings:
    benchmark = Infilling(files=(f"HumanEval-{kind}.jsonl.gz", f"HumanEval-{kind}.jsonl"))
    return Settings(benchmark, INFILLING, column=column, needs="the sandbox")


TABLE: Mapping[str, Settings] = {
    "humaneval-single": _infilling("SingleLineInfilling", "HumanEval single-line"),
    "humaneval-multi": _infilling("MultiLineInfilling", "HumanEval multi-line"),
    "humaneval-span": _infilling("RandomSpanInfilling", "HumanEval split"),
    "humaneval-span-light": _infilling("RandomSpanInfillingLight"),
    "humaneval": Settings(HumanEval(), LLADA_BASE, num_new=1024, stop=AT_DEFINITIONS, needs="the sandbox"),
    "gsm8k": Settings(GSM8K(), LLADA_BASE, num_new=1024, shots=5, stop=AT_QUESTIONS, needs="math-verify"),
    "gsm8k-instruct": Settings(GSM8K(chat=True), LLADA_INSTRUCT, num_new=256, block_length=8, needs="math-verify"),
    "math": Settings(
        CompetitionMath(), LLADA_BASE, num_new=1024, shots=4, stop=AT_PROBLEMS, column="Math", needs="math-verify"
    ),
    "math-instruct": Settings(
        CompetitionMath(chat=True), LLADA_INSTRUCT, num_new=512, block_length=64, column="Math", needs="math-verify"
    ),
    "mmlu": Settings(MMLU(), f"{LLADA_BASE}; by likelihood", shots=5),
    "mmlu-instruct": Settings(MMLU(chat=True), LLADA_INSTRUCT, num_new=3, shots=5, column="MMLU"),
    "rocstories": Settings(RocStories(), ROC_STORIES, column="ROCStories"),
}


def settings_of(name: str) -> Settings:
    """The settings of that name; InputError if there are none."""
    if name not in TABLE:
        raise InputError(f"unknown task {shown(name)}; choose from {', '.join(TABLE)}")
    return TABLE[name]
