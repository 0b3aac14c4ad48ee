"""Small files of benchmarks, in the formats in which they are published."""

import csv
import gzip
import json

BODIES = {
    "add": (
        '    """ Adds.\n    >>> add(2, 3)\n    5\n    """\n',
        "    total = x + y\n    return total\n",
        "(2, 3) == 5",
    ),
    "larger": ('    """ The larger one. """\n', "    if x > y:\n        return x\n    return y\n", "(2, 3) == 3"),
    "times": ('    """ x times y. """\n', "    return x * y\n", "(2, 3) == 6"),
}


def code_records():
    for number, (name, (words, body, test)) in enumerate(BODIES.items()):
        yield {
            "task_id": f"HumanEval/{number}",
            "entry_point": name,
            "prompt": f"def {name}(x, y):\n{words}",
            "canonical_solution": body,
            "test": f"\n\ndef check(candidate):\n    assert candidate{test}\n",
        }


def infilling_records():
    for record in code_records():
        lines = record["canonical_solution"].splitlines(keepends=True)
        for number, line in enumerate(lines):
            yield record | {
                "task_id": f"SingleLineInfilling/{record['task_id']}/L{number}",
                "prompt": record["prompt"] + "".join(lines[:number]),
                "canonical_solution": line,
                "suffix": "".join(lines[number + 1 :]),
            }


MATH = [
    {"problem": "What is $1 + 1$?", "solution": r"It is $\boxed{2}$.", "level": "Level 1", "type": "Algebra"},
    {
        "problem": "Halve $1$.",
        "solution": r"It is $\frac12 = \boxed{\frac{1}{2}}$.",
        "level": "Level 1",
        "type": "Algebra",
    },
]
GSM8K = [
    {"question": "Two hens lay 600 eggs each. How many?", "answer": "They lay 2*600 = <<2*600=1200>>1200.\n#### 1,200"},
    {"question": "Tom has 3 apples and eats one. How many?", "answer": "He has 3-1 = <<3-1=2>>2.\n#### 2"},
]
MMLU = [
    {"subject": "high_school_physics", "question": "Up is?", "choices": ["a", "b", "c", "d"], "answer": "C"},
    {"subject": "high_school_physics", "question": "Down is?", "choices": ["a", "b", "c", "d"], "answer": "A"},
    {"subject": "law", "question": "Who?", "choices": ["I", "you", "she", "we"], "answer": "D"},
]
STORIES = [
    ["Tom had a cat.", "It ran off.", "He looked for it all day.", "It was on a mat.", "Tom was glad."],
    ["Ann was sad.", "She sat.", "A rat came by.", "It sat on her hat.", "She laughed."],
]


def write_lines(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def write(folder):
    """A folder with a file of every benchmark."""
    folder.mkdir(exist_ok=True)
    write_lines(folder / "HumanEval.jsonl.gz", code_records())
    for kind in ("SingleLine", "MultiLine", "RandomSpan"):
        write_lines(folder / f"HumanEval-{kind}Infilling.jsonl.gz", infilling_records())
    write_lines(folder / "HumanEval-RandomSpanInfillingLight.jsonl.gz", infilling_records())
    write_lines(folder / "gsm8k-test.jsonl", GSM8K)
    write_lines(folder / "gsm8k-train.jsonl", 3 * GSM8K[::-1])
    write_lines(folder / "math-test.jsonl.gz", MATH)
    write_lines(folder / "mmlu-test.jsonl.gz", MMLU)
    write_lines(folder / "mmlu-dev.jsonl.gz", 5 * MMLU)
    with (folder / "rocstories.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["storyid", "storytitle", *(f"sentence{i}" for i in range(1, 6))])
        rows.writerows([str(i), "A story", *sentences] for i, sentences in enumerate(STORIES))
    return folder
