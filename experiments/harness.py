"""lm-evaluation-harness with masked models of this library: its own command line, and a model called mdm_jax.

    pip install -e '.[lm-eval]'
    python -m experiments.harness run --model mdm_jax --tasks gsm8k --model_args model=LLaDA-8B-Base,oracle=margin

`generate_until` fills in `num_new` masks behind the prompt in the order of an oracle. `loglikelihood` is exact from
left to right (likelihood=left_to_right), or an estimated lower bound over all orders (likelihood=all, with num_draws);
for one token both are the same.
"""

import collections
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import mdm_jax
from experiments.llada_answers import cut, load_student
from experiments.oracles import oracle_named
from experiments.plugins import import_plugins
from mdm_jax.endings import ended_well
from mdm_jax.errors import InputError, of_extra
from mdm_jax.evaluation.likelihood import Continuation, continuation, log_likelihoods
from mdm_jax.text.tokenizer import rendered

with of_extra("lm-eval"):
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model


@register_model("mdm_jax")
class MaskedModel(LM):
    """A masked model as the harness wants it. The arguments are those of `--model_args`."""

    def __init__(
        self,
        model: str,
        tokenizer: str | None = None,
        oracle: str = "margin",
        tokens_per_step: int = 1,
        num_new: int = 256,
        block_length: int | None = None,
        temperature: float = 0.0,
        likelihood: str = "all",
        num_draws: int = 128,
        mask_id: int | None = None,
        batch_size: int | str = 8,
        seed: int = 0,
        fsdp: int = 1,
        tensor: int = 1,
        **others: Any,
    ) -> None:
        super().__init__()
        if unknown := sorted(set(others) - {"device", "max_batch_size"}):
            raise InputError(f"--model_args has no {', '.join(unknown)}")
        if not str(batch_size).isdigit():
            raise InputError(f"--batch_size must be a number, got {batch_size}")
        place = None if tokenizer is None else pathlib.Path(tokenizer)
        self._student = load_student(model, place, mask_id, fsdp=fsdp, tensor=tensor)
        self._num_new, self._name, self._has_template = num_new, model, False
        self._options: dict[str, Any] = {"batch_size": int(batch_size), "seed": seed}
        self._order: dict[str, Any] = {
            "oracle": oracle_named(oracle),
            "selector": mdm_jax.PerStep(tokens_per_step),
            "block_length": block_length,
            "temperature": temperature,
        }
        self._likelihood: dict[str, Any] = {"order": likelihood, "num_draws": num_draws}

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What comes behind each context, up to the first of its texts to stop at."""
        asked = [request.args for request in requests]
        prompts = [self._student.tokenizer.encode(context, special=not self._has_template) for context, _ in asked]
        lengths = [int(options.get("max_gen_toks", self._num_new)) for _, options in asked]
        texts = [found.text or "" for found in self._generated(prompts, lengths, "generate")]
        stops = [options.get("until") or [] for _, options in asked]
        done = [cut(text, [stop] if isinstance(stop, str) else stop) for text, stop in zip(texts, stops, strict=True)]
        for request, text in zip(requests, done, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return done

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each (context, continuation), nats, and whether the model would have written the continuation."""
        most = self._student.model.config.max_length
        pairs = [continuation(self._student.tokenizer, *request.args) for request in requests]
        pairs = [Continuation(p[max(0, len(p) + len(t) - most) :], t) for p, t in pairs]
        values = self._log_likelihoods(pairs)
        places = {key: i for i, key in enumerate(dict.fromkeys((tuple(p), len(t)) for p, t in pairs))}
        written = self._generated([list(p) for p, _ in places], [n for _, n in places], "greedy", temperature=0.0)
        greedy = [list(t) == written[places[tuple(p), len(t)]].tokens for p, t in pairs]
        found = list(zip(values, greedy, strict=True))
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, value)
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of each text, nats: of pieces as long as the model takes, each without what is before it."""
        most = self._student.model.config.max_length
        texts = [self._student.tokenizer.encode(request.args[0]) for request in requests]
        pieces = [(i, ids[j : j + most]) for i, ids in enumerate(texts) for j in range(0, len(ids), most)]
        found = [0.0] * len(requests)
        for (i, _), value in zip(pieces, self._log_likelihoods([Continuation([], p) for _, p in pieces]), strict=True):
            found[i] += value
        return found

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, up to where the answer begins."""
        words = self._student.tokenizer
        if words.template is None or not add_generation_prompt:
            raise InputError(f"{self._name} has no chat template for that: leave --apply_chat_template out")
        self._has_template = True
        return rendered(words.template, chat_history, words.special, words.place.parent)

    @property
    def tokenizer_name(self) -> str:
        """Of the model's folder, for the harness's cache."""
        return self._name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template itself, for the harness's records."""
        return self._student.tokenizer.template if chat_template else ""

    def _log_likelihoods(self, pairs: Sequence[Continuation]) -> list[float]:
        model = self._student.model
        return log_likelihoods(
            model.denoiser,
            model.params,
            pairs,
            mask_id=self._student.mask_id,
            pad_id=self._student.pad_id,
            max_length=model.config.max_length,
            progress="loglikelihood",
            **self._options,
            **self._likelihood,
        )

    def _generated(
        self, prompts: Sequence[list[int]], lengths: Sequence[int], label: str, **changes: Any
    ) -> list[mdm_jax.Generated]:
        """What is behind each prompt, of as many tokens; a prompt that does not fit loses its beginning."""
        most = self._student.model.config.max_length
        groups: dict[int, list[int]] = collections.defaultdict(list)
        for i, length in enumerate(lengths):
            groups[min(length, most)].append(i)
        found: dict[int, mdm_jax.Generated] = {}
        for num_new, numbers in groups.items():
            generated = mdm_jax.generate(
                self._student.model,
                [prompts[i][max(0, len(prompts[i]) + num_new - most) :] for i in numbers],
                tokenizer=self._student.tokenizer,
                num_new=num_new,
                mask_id=self._student.mask_id,
                numbers=numbers,
                progress=label,
                **self._options,
                **(self._order | changes),
            )
            found |= dict(zip(numbers, generated, strict=True))
        return [found[i] for i in range(len(prompts))]


def main(run: Callable[[], None] = cli_evaluate) -> None:
    """The harness's command line. Bad input becomes one line and exit code 2."""
    with ended_well():
        try:
            sys.argv[1:] = import_plugins(sys.argv[1:])
            run()
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)


if __name__ == "__main__":
    main()
