"""`COMMAND --help`: tyro's text with the flags in groups, and examples at the end."""

import re
from collections.abc import Sequence

GROUPS = {
    "data": """num-train num-test data size clues difficulty source test-source field held-out packing empty-lines
        end-token tokenizer vocab workers order order-seed augment layout task text puzzle puzzles ladder riddle shots
        prompt infill limit limit-9x9 num-latents num-observations length min-houses max-houses min-attributes
        max-attributes sequences""",
    "model": """model checkpoint proxy judge init-from mask-id dropout dtype param-dtype layers width heads positions
        num-loops settled lora-rank""",
    "optimisation": """steps loss optimizer learning-rate warmup-steps final-fraction weight-decay beta1 beta2 clip-norm
        ema-decay max-skipped finetune-steps finetune-rate""",
    "decoding": """oracle noise tokens-per-step num-steps binomial-steps threshold entropy-budget klass remask-steps
        search-width check corrector proposals choose check-forms enough temperature num-new end end-ids block-length
        step-counts selector""",
    "machine": """batch-size batch accumulate remat fsdp tensor profile turns compute logits compare topology
        devices""",
    "evaluation and output": """evaluate-every evaluate-limit best-metric best-mode checkpoint-every save-every
        log-every methods orders scale minutes viewer seed out""",
}
"""The flags of each group, which are shown in this order. Those of none come before them."""
NUM_EXAMPLES = 3


def grouped(text: str, examples: Sequence[str]) -> str:
    """The text of `--help` with a section for each group of options.

    Args:
      text: what tyro wrote to a stream that is no terminal.
      examples: command lines to end with.
    """
    text = re.sub(" +$", "", text, flags=re.MULTILINE)
    found = re.search(r"^ options\n -+\n((?:.+\n)+)", text, re.MULTILINE)
    if found is None:  # a command that has other commands
        return text
    home = {flag: group for group, flags in GROUPS.items() for flag in flags.split()}
    sections: dict[str, list[str]] = {"options": [], **{group: [] for group in GROUPS}}
    group = "options"
    for line in found[1].splitlines():
        if start := re.match(r"  (?:-\w, )?--([\w-]+)", line):
            group = home.get(start[1], "options")
        sections[group].append(line)
    parts = ["\n".join([f" {title}", f" {'-' * 78}", *lines, ""]) for title, lines in sections.items() if lines]
    end = "".join(f"  {example}\n" for example in examples)
    return text[: found.start()] + "\n".join(parts) + text[found.end() :] + f" examples\n {'-' * 78}\n{end}"


def examples_of(experiment: str, command: str, description: str) -> list[str]:
    """The command lines in the text about an experiment, those of the command first, at most NUM_EXAMPLES."""
    lines = re.findall(rf"^ *(python -m experiments\.{experiment}(?: \S.*)?)$", description, re.MULTILINE)
    own = [line for line in lines if re.match(f"({command}|--.*|)$", "".join(line.split()[3:4]))]
    return [*own, *(line for line in lines if line not in own)][:NUM_EXAMPLES]
