"""The losses that `--loss` names."""

from mdm_jax.draws import DRAWS
from mdm_jax.errors import InputError
from mdm_jax.training.every_loop import EveryLoop
from mdm_jax.training.objectives import NAMED, Loss, causal_loss, masked_loss


def losses(name: str, mask_id: int | None, what: str, *, num_loops: int | None = None) -> tuple[Loss, Loss]:
    """The loss that training minimises, and the bound on the likelihood that held-out records are measured with.

    Args:
      name: what `--loss` says.
      mask_id: the mask token's id; None for an autoregressive model.
      what: names the model in a message.
      num_loops: of a looped network, whose every loop is trained; None for another.

    Raises:
      InputError: the loss is for masked models, and this is none; or it is not for loops.
    """
    if num_loops is not None:
        if mask_id is None:
            raise InputError(
                f"a network of {num_loops} loops is for masked models, and {what} is not: train one without loops"
            )
        if name not in ("plain", *DRAWS):
            raise InputError(f"--loss {name} trains no loops: choose from plain, {', '.join(DRAWS)}")
        return masked_loss(mask_id, EveryLoop(DRAWS["subset" if name == "plain" else name])), masked_loss(mask_id)
    if mask_id is not None:
        plain = masked_loss(mask_id)
        return plain if name == "plain" else masked_loss(mask_id, NAMED[name]), plain
    if name != "plain":
        raise InputError(f"--loss {name} is for masked models, and {what} is not: leave it out")
    return causal_loss(), causal_loss()
