"""L&O-NAE-SAT: a model that generates latents and what is observed of them agrees with itself, if it plans the order.

Claim (Kim et al. 2025, Table 1; five distributions, 19M parameters): of the generated observations, 63 to 78% agree
with the generated latents in random order, 89 to 94% by the margin between the two likeliest values.

    python -m experiments.nae_sat reproduce
    python -m experiments.nae_sat exact
    python -m experiments.nae_sat train --num-latents 25 --num-observations 275 --length 512 --out runs/nae-sat
    python -m experiments.nae_sat evaluate --checkpoint runs/nae-sat --step-counts 300 100 50
"""

from experiments.common import main
from experiments.nae_sat.flags import Evaluate, Exact, Prepare, Reproduce, Train

COMMANDS = {
    "prepare": (Prepare, "experiments.nae_sat.train:prepare"),
    "train": (Train, "experiments.nae_sat.train:train"),
    "evaluate": (Evaluate, "experiments.nae_sat.evaluate:evaluate"),
    "reproduce": (Reproduce, "experiments.nae_sat.reproduce:reproduce"),
    "exact": (Exact, "experiments.nae_sat.exact:exact"),
}

if __name__ == "__main__":
    main("nae_sat", __doc__ or "", COMMANDS)
