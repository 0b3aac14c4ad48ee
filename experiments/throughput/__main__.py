"""Measures throughput and memory on this machine, as ratios within one run.

    python -m experiments.throughput run --model sudoku_6m --batch 32
    python -m experiments.throughput run --model smdm_170m --batch 8 --length 1024 --oracle margin --compare torch
    python -m experiments.throughput start --model sudoku_6m
    python -m experiments.throughput load --model llada_8b
    python -m experiments.throughput loop --model sudoku_6m --batch 32 --length 81
    python -m experiments.throughput memory --model smdm_170m --batch 8 --length 2048 --topology v5p:2x2x1
    python -m experiments.throughput programs --model smdm_6m --batch 8 --length 1024 --topology v5p:2x2x1
    python -m experiments.throughput shards --model llada_8b --devices 1,2,4,8 --topology v5p:2x2x2

`run` times sampling per oracle, and the overhead of choosing the order and the tokens over the bare network. The aim is
at most 5% on a GPU and 10% on a CPU. `start` times a process up to its first tokens, with an empty cache of compiled
programs and with a filled one. `load` times a Hugging Face folder of a preset's shapes on its way to the device, and
the first tokens. `loop` times the overhead of the training loop (data, metrics, progress) over the bare
jitted step. The aim is at most 5%. `memory` reports the bytes that the compiled step needs, with the logits of all
positions and with those of masked positions only. `programs` compiles every sampler, and counts the operations that an
accelerator is slow at. `shards` reports the bytes of each device that samples from a model split over several.
"""

from experiments.common import main
from experiments.throughput.flags import Load, Loop, Memory, Programs, Run, Shards, Start

COMMANDS = {
    "run": (Run, "experiments.throughput.run:run"),
    "start": (Start, "experiments.throughput.start:start"),
    "load": (Load, "experiments.throughput.load:load"),
    "loop": (Loop, "experiments.throughput.training:loop"),
    "memory": (Memory, "experiments.throughput.training:memory"),
    "programs": (Programs, "experiments.throughput.programs:programs"),
    "shards": (Shards, "experiments.throughput.shards:shards"),
}

if __name__ == "__main__":
    main("throughput", __doc__ or "", COMMANDS)
