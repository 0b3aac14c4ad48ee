r"""MATH: problems of competitions, whose answers are boxed (Hendrycks et al. 2021, arXiv:2103.03874)."""

import dataclasses
import pathlib
from collections.abc import Sequence

from mdm_jax.errors import InputError
from mdm_jax.files import read_json
from mdm_jax.tasks.language.benchmark import Generative, Problem, Prompt, Score, check_fields, first, read_records
from mdm_jax.tasks.language.gsm8k import STEP_BY_STEP
from mdm_jax.tasks.language.verify import is_equal

FIELDS = {"problem": str, "solution": str}
SHOTS = (
    (
        r"Find the domain of the expression  $\frac{\sqrt{x-2}}{\sqrt{5-x}}$.}",
        r"The expressions inside each square root must be non-negative. Therefore, $x-2 \ge 0$, so $x\ge2$, and "
        r"$5 - x \ge 0$, so $x \le 5$. Also, the denominator cannot be equal to zero, so $5-x>0$, which gives $x<5$. "
        r"Therefore, the domain of the expression is $\boxed{[2,5)}$.",
        "[2,5)",
    ),
    (
        r"If $\det \mathbf{A} = 2$ and $\det \mathbf{B} = 12,$ then find $\det (\mathbf{A} \mathbf{B}).$",
        r"We have that $\det (\mathbf{A} \mathbf{B}) = (\det \mathbf{A})(\det \mathbf{B}) = (2)(12) = \boxed{24}.$",
        "24",
    ),
    (
        "Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights instead, how many times "
        "must Terrell lift them in order to lift the same total weight?",
        r"If Terrell lifts two 20-pound weights 12 times, he lifts a total of $2\cdot 12\cdot20=480$ pounds of weight."
        r"  If he lifts two 15-pound weights instead for $n$ times, he will lift a total of $2\cdot15\cdot n=30n$ "
        "pounds of weight.  Equating this to 480 pounds, we can solve for $n$:\n"
        "\\begin{align*}\n30n&=480\\\\\n\\Rightarrow\\qquad n&=480/30=\\boxed{16}\n\\end{align*}",
        "16",
    ),
    (
        "If the system of equations\n\n\\begin{align*}\n6x-4y&=a,\\\\\n6y-9x &=b.\n\\end{align*}has a solution "
        "$(x, y)$ where $x$ and $y$ are both nonzero,\nfind $\\frac{a}{b},$ assuming $b$ is nonzero.",
        "If we multiply the first equation by $-\\frac{3}{2}$, we obtain\n\n$$6y-9x=-\\frac{3}{2}a.$$Since we also "
        "know that $6y-9x=b$, we have\n\n$$-\\frac{3}{2}a=b\\Rightarrow\\frac{a}{b}=\\boxed{-\\frac{2}{3}}.$$",
        r"-\frac{2}{3}",
    ),
)
"""Problems of the training set with solutions and answers: the examples of Lewkowycz et al. 2022, appendix D.2."""


@dataclasses.dataclass(frozen=True)
class CompetitionMath(Generative):
    """Four worked examples and a problem; or, as a message, the problem alone."""

    chat: bool = False
    files: Sequence[str] = ("math-test.jsonl.gz", "math-test.jsonl", "MATH/test")

    def read(self, path: pathlib.Path) -> list[Problem]:
        """The problems of JSON lines, or of a folder with a folder for each kind and a file for each problem."""
        if not path.is_dir():
            return read_records(path, FIELDS)
        found = [(file, read_json(file, "a problem")) for file in sorted(path.glob("*/*.json"))]
        for file, problem in found:
            check_fields(problem, FIELDS, str(file))
        if not found:
            raise InputError(f"{path} holds no */*.json")
        return [problem for _, problem in found]

    def prompt(self, problem: Problem, shots: Sequence[Problem], num_shots: int) -> Prompt:
        """The examples, and the problem."""
        del shots
        if self.chat:
            return [{"role": "user", "content": problem["problem"] + STEP_BY_STEP}]
        examples = [
            f"{posed(text)} {solution}\nFinal Answer: The final answer is ${answer}$. I hope it is correct.\n\n"
            for text, solution, answer in first(num_shots, SHOTS, "for MATH")
        ]
        return "".join(examples) + posed(problem["problem"])

    def reference(self, problem: Problem) -> str:
        """The solution, whose answer is boxed."""
        return f" {problem['solution']}"

    def score(self, problem: Problem, answer: str) -> Score:
        """Whether the final answer is equal to the boxed one."""
        return Score(float(is_equal(problem["solution"], answer)), answer.strip()[-80:])


def posed(text: str) -> str:
    """A problem, up to where its solution begins."""
    return f"Problem:\n{text}\n\nSolution:"
