"""ROCStories: the third of five sentences, from the others (Mostafazadeh et al. 2016)."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence

from mdm_jax.errors import InputError
from mdm_jax.files import read_bytes
from mdm_jax.tasks.language.benchmark import MOST, Generative, Hole, Problem, Prompt, Score
from mdm_jax.tasks.language.rouge import rouge

STORIES = [f"sentence{i}" for i in range(1, 6)]
ENDINGS = {str(i): f"RandomFifthSentenceQuiz{i}" for i in (1, 2)}
CLOZE = [f"InputSentence{i}" for i in range(1, 5)]
RIGHT = "AnswerRightEnding"


@dataclasses.dataclass(frozen=True)
class RocStories(Generative):
    """A sentence in the middle of a story; its number of tokens is given."""

    files: Sequence[str] = (
        "cloze_test_val__spring2016 - cloze_test_ALL_val.csv",
        "cloze_test_val__spring2016.csv",
        "rocstories.csv",
    )

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The stories of a table with a header: five sentences, or four and two endings, of which one is right."""
        rows = csv.DictReader(io.StringIO(read_bytes(path, most=MOST).decode("utf-8-sig", "replace")))
        columns = set(rows.fieldnames or ())
        if not (set(STORIES) <= columns or {*CLOZE, *ENDINGS.values(), RIGHT} <= columns):
            wanted = f"{', '.join(STORIES)}, or {', '.join([*CLOZE, *ENDINGS.values(), RIGHT])}"
            raise InputError(f"{path} lacks columns: wanted are {wanted}")
        found: list[Problem] = []
        for row in rows:
            names = STORIES if set(STORIES) <= columns else [*CLOZE, ENDINGS.get(row[RIGHT], "")]
            if any(not row.get(name) for name in names):
                raise InputError(f"{path} has a story without five sentences, in line {rows.line_num}")
            found.append({"sentences": [row[name] for name in names]})
        if not found:
            raise InputError(f"{path} holds no stories")
        return found

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """Two sentences before, two behind, with a blank between any two."""
        del shots, num_shots
        one, two, three, four, five = map(str, problem["sentences"])
        return (f"{one} {two}", Hole(f" {three}"), f" {four} {five}")

    def reference(self, problem: Problem) -> str:
        """The sentence."""
        return f" {problem['sentences'][2]}"

    def score(self, problem: Problem, answer: str) -> Score:
        """The mean of ROUGE-1, ROUGE-2 and ROUGE-L."""
        found = rouge(problem["sentences"][2], answer)
        return Score(sum(found) / 3, "rouge 1, 2, L: " + ", ".join(f"{value:.3f}" for value in found))
