"""A learned order beside the margin's, and beside one that sees the answers.

Claim (after Gt-Margin, arXiv:2602.09501, and SAS, arXiv:2606.23567): a planner that was trained to rank masked
positions by what the network gives the truth there reveals better than a rule on the network's confidence. Gt-Margin
ranks by the margin of the truth, its probability less the largest other one; here the rank is by its log-probability,
and the planner is a linear head on the last hidden state and the confidence. It begins as the margin. With
`--finetune-steps` the network is then trained in the states that the learned order meets. `truth` sees the answers:
it first reveals positions at which the network's likeliest token is right. So it shows how far an order might go. It
is greedy: where it fails, another order may still succeed. Sequences of L&O-NAE-SAT are drawn, and have no such answer.

    python -m experiments.learned_order reproduce
    python -m experiments.learned_order reproduce --checkpoint sudoku-6m --difficulty hard --tokens-per-step 1 4
    python -m experiments.learned_order reproduce --task zebra --checkpoint runs/zebra --limit 500 --finetune-steps 500
"""

import dataclasses
import pathlib
from typing import Annotated, Literal

from experiments.common import run
from mdm_jax.ranges import INT32, Count, Positive, Range, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train a head that orders the masks, and compare its order with others on held-out records."""

    task: Literal["sudoku", "zebra", "nae_sat"] = "sudoku"
    """the task that the model was trained on"""
    checkpoint: pathlib.Path = pathlib.Path("sudoku-6m")
    """a run's folder of a masked model, one of its checkpoints, or the name of shipped weights"""
    difficulty: str | None = None
    """of held-out puzzles: normal, hard, or both with a comma (None: as in training)"""
    num_train: Count = 2_000
    """records that the head is trained on, from the first of the training split"""
    steps: Count = 500
    """training steps of the head"""
    batch_size: Count = 32
    """records in a batch"""
    learning_rate: Positive = 0.01
    """of the head, falling to 0"""
    finetune_steps: Annotated[int, Range(0, INT32)] = 0
    """then train the network for so many steps in the states that the learned order meets, and another one in those of
    a random order, and measure all orders with both"""
    finetune_rate: Positive = 1e-4
    """learning rate of that training, falling to 0"""
    tokens_per_step: tuple[Count, ...] = (1, 2, 4)
    """how many tokens a step reveals"""
    limit: Count = 200
    """held-out records of each set"""
    seed: Seed = 0
    """of the head's batches and masks, and of all draws"""
    out: pathlib.Path = pathlib.Path("runs/learned-order")
    """folder of results.json and order.npz, the head"""


COMMANDS = {"reproduce": (Reproduce, "experiments.learned_order_table:reproduce")}

if __name__ == "__main__":
    run("learned_order")
