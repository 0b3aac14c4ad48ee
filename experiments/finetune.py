"""Fine-tuning: a pretrained model learns to answer prompts as a file of examples does.

Any model that mdm_jax.load reads: a Hugging Face folder (LLaDA, Dream, Qwen2, Llama, GPT-2, SMDM, BERT), a run, or an
export. A masked model has the prompt given and masks in the answer; a causal one predicts the answer from left to
right. Trained whole, or by low-rank adapters, of which a checkpoint is small. docs/finetuning.md says more.

    python -m experiments.finetune train --model DIR --data FILE.jsonl --out RUN
    python -m experiments.finetune train --model DIR --data FILE.jsonl --out RUN --lora-rank 8 --learning-rate 2e-4
    python -m experiments.finetune train --model DIR --data FILE.jsonl --held-out TEST.jsonl --out RUN
    mdm-jax generate --model RUN --prompt ...
"""

import dataclasses
import pathlib
from typing import Annotated

from experiments.commands.flags import LossFlags
from experiments.common import run
from experiments.flags import RunFlags
from mdm_jax.ranges import INT32, Count, Decay, Positive, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(RunFlags, LossFlags):
    """Train on prompts and answers; the same command again goes on from the newest checkpoint."""

    model: pathlib.Path
    """the model to start from: a Hugging Face folder, a run or one of its checkpoints, an export, or shipped weights"""
    data: pathlib.Path
    """a JSON object in each line, with prompt and answer, or with messages of which the last is the answer"""
    held_out: pathlib.Path | None = None
    """such a file to evaluate on, whole; the metric is held_out_loss_per_token"""
    lora_rank: Count | None = None
    """train low-rank adapters of this rank, of all matrices of attention and MLPs (None: train all parameters)"""
    tokenizer: pathlib.Path | None = None
    """a tokenizer.json (None: the one in the model's folder; without one prompts and answers are token ids)"""
    mask_id: Annotated[int, Range(0, INT32)] | None = None
    """the mask token's id (None: as the model's folder says)"""
    end_id: Annotated[int, Range(0, INT32)] | None = None
    """the id of the token that ends an answer (None: as the model's folder says)"""
    steps: Count = 1_000
    """training steps"""
    batch_size: Count = 16
    """examples per step, over all devices"""
    learning_rate: Positive = 2e-5
    """the peak learning rate, after warm-up; adapters want about ten times as much"""
    ema_decay: Decay = 0.0
    """decay rate of the moving average of the trained parameters, which is evaluated and loaded; 0 keeps none"""
    out: pathlib.Path = pathlib.Path("runs/finetune")
    """folder of the run: checkpoints, metrics, the tokenizer, results.json"""


COMMANDS = {"train": (Train, "experiments.commands.finetune:train")}

if __name__ == "__main__":
    run("finetune")
