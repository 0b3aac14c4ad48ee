"""MMLU: questions of 57 subjects with four choices (Hendrycks et al. 2021, arXiv:2009.03300)."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence

from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.tasks.language.benchmark import MOST, Problem, Prompt, Score, first, read_records

LETTERS = "ABCD"
HEAD = "The following are multiple choice questions (with answers) about {}.\n\n"
OPEN = "There is a single choice question about {}. Answer the question by replying A, B, C or D.\nQuestion: "


@dataclasses.dataclass(frozen=True)
class MMLU:
    """Answered questions of the subject, and the question; or the same as a conversation.

    The answer is the likeliest letter, or, in a conversation, the first one of a generated text. OpenCompass asks the
    last question in other words than those of the examples; here all are asked alike.
    """

    chat: bool = False
    files: Sequence[str] = ("mmlu-test.jsonl.gz", "mmlu-test.jsonl", "mmlu/test")
    shot_files: Sequence[str] = ("mmlu-dev.jsonl.gz", "mmlu-dev.jsonl", "mmlu/dev")

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The questions of JSON lines, or of a folder with a table for each subject, without header."""
        if not path.is_dir():
            found = read_records(path, {"subject": str, "question": str, "choices": list, "answer": str})
        else:
            found = [problem for file in sorted(path.glob("*.csv")) for problem in of_subject(file)]
        wrong = next((p for p in found if len(p["choices"]) != 4 or p["answer"] not in list(LETTERS)), None)
        if wrong is not None or not found:
            what = "holds no *.csv" if wrong is None else "has a question without four choices and a letter of them"
            raise InputError(f"{path} {what}")
        return found

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """The subject, its first examples, and the question."""
        subject = problem["subject"]
        own, name = [shot for shot in shots if shot["subject"] == subject], subject.replace("_", " ")
        examples = first(num_shots, own, f"of the subject {subject}")
        if not self.chat:
            texts = [f"{asked(shot)} {shot['answer']}\n\n" for shot in examples]
            return "".join([HEAD.format(name), *texts, asked(problem)])
        turns = []
        for each in (*examples, problem):
            turns.append({"role": "user", "content": f"{OPEN.format(name)}{asked(each)} "})
            turns.append({"role": "assistant", "content": f"{each['answer']}\n"})
        return turns[:-1]

    def reference(self, problem: Problem) -> str:
        """The letter, behind a blank."""
        return f" {problem['answer']}"

    def choices(self, problem: Problem) -> Sequence[str]:
        """The letters, behind a blank."""
        del problem
        return [] if self.chat else [f" {letter}" for letter in LETTERS]

    def score(self, problem: Problem, answer: str) -> Score:
        """Whether its first letter of the four is right."""
        found = next((character for character in answer if character in LETTERS), "")
        return Score(float(found == problem["answer"]), answer.strip()[:80])


def asked(problem: Problem) -> str:
    """A question with its choices."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem["choices"], strict=True)]
    return "\n".join([problem["question"].strip(), *lines, "Answer:"])


def of_subject(path: pathlib.Path) -> list[Problem]:
    """The questions of a table: question, four choices, letter."""
    subject = path.stem.rpartition("_")[0] or path.stem
    rows = list(csv.reader(io.StringIO(read_bytes(path, most=MOST).decode("utf-8", "replace"), newline="")))
    if not all(len(row) == 6 for row in rows):
        raise InputError(f"{path} has a row that is not question, four choices and a letter")
    return [{"subject": subject, "question": row[0], "choices": row[1:5], "answer": row[5]} for row in rows]
