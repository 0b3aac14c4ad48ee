r"""GSM8K: grade-school problems with answers that end in a number (Cobbe et al. 2021, arXiv:2110.14168)."""

import dataclasses
import pathlib
from collections.abc import Sequence

from mdm_jax.tasks.language.benchmark import Generative, Problem, Prompt, Score, first, read_records
from mdm_jax.tasks.language.verify import is_equal

STEP_BY_STEP = "\nPlease reason step by step, and put your final answer within \\boxed{}."


@dataclasses.dataclass(frozen=True)
class GSM8K(Generative):
    """Worked examples and a question; or, as a message, the question alone."""

    chat: bool = False
    files: Sequence[str] = ("gsm8k-test.jsonl", "gsm8k/test.jsonl")
    shot_files: Sequence[str] = ("gsm8k-train.jsonl", "gsm8k/train.jsonl")

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The problems."""
        return read_records(path, {"question": str, "answer": str})

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """The first examples of the training file, and the question."""
        if self.chat:
            return [{"role": "user", "content": problem["question"] + STEP_BY_STEP}]
        examples = [
            f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n"
            for shot in first(num_shots, shots, "in the training file")
        ]
        return "".join(examples) + f"Question: {problem['question']}\nAnswer:"

    def reference(self, problem: Problem) -> str:
        """The answer with its reasons."""
        return f" {problem['answer']}"

    def score(self, problem: Problem, answer: str) -> Score:
        """Whether the number is right: that behind ####, if the answer has it, and otherwise the one it comes to."""
        gold, found = (text.rpartition("####")[2].strip() for text in (problem["answer"], answer))
        return Score(
            float(is_equal(gold.replace(",", ""), found.split("\n")[0] if "####" in answer else found)), found[-80:]
        )
