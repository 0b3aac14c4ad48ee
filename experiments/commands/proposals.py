"""`--proposals N`: several answers to a record, of which one is kept, or one of several predictions averaged."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mdm_jax
from experiments.commands.decode import skipping
from experiments.commands.flags import EvaluateFlags
from experiments.common import Row
from mdm_jax.choosing import Rank
from mdm_jax.errors import InputError
from mdm_jax.loading import Model
from mdm_jax.oracles import ORACLES
from mdm_jax.sampling import Decode, SampleResult
from mdm_jax.tasks.base import Layout, Symmetric
from mdm_jax.typing import Array

UNCHECKED = {
    "stable": "--choose stable keeps what comes back",
    "average": "--choose average makes one answer",
}
"""What leaves nothing to check."""


class Way(NamedTuple):
    """One number of proposals."""

    label: str
    keep: Callable[[Decode], Decode]
    """a decoder -> what keeps one of so many of its answers"""
    fields: Row
    """those that name it in a row"""
    model: Model
    """the model that is to be decoded"""


def ways(flags: EvaluateFlags, model: Model, layout: Layout) -> list[Way]:
    """What is made of each decoder: nothing, or for each number of proposals one that keeps one of so many answers.

    Raises:
      InputError: the flags do not fit each other or the layout.
    """
    if flags.check_forms > 1 or flags.enough is not None:
        if flags.choose in UNCHECKED:
            raise InputError(f"{UNCHECKED[flags.choose]}: leave --check-forms and --enough out")
        if flags.check is None or not flags.proposals:
            raise InputError("--check-forms and --enough say how proposals are checked: give --proposals and --check")
    if not flags.proposals:
        if flags.choose != "likeliest":
            raise InputError(f"--choose {flags.choose} is for several answers or forms: give --proposals too")
        return [Way("", lambda decode: decode, {}, model)]
    if layout.mask_id is None:
        raise InputError("--proposals is for masked models, and this one is not: leave it out")
    if flags.viewer is not None and flags.remask_steps is not None:
        raise InputError("--viewer shows one decoding that takes tokens back: leave --proposals or --remask-steps out")
    is_of_search = flags.choose == "average" and flags.search_width is not None
    if flags.choose in UNCHECKED and flags.check is not None and not is_of_search:
        raise InputError(f"{UNCHECKED[flags.choose]}: leave --check out")
    if flags.choose == "average" and (flags.keep is not None or flags.corrector == "quality"):
        flag = "--corrector quality" if flags.keep is None else "--keep"
        raise InputError(f"--choose average mixes predictions, and {flag} reads what lies behind them: leave one out")
    wants_chance = flags.choose in ("likeliest", "stable") and max(flags.proposals) > 1
    if wants_chance and (alike := list(_without_chance(flags))):
        raise InputError(f"all proposals of {alike[0]} would be the same: give --noise or --temperature")
    settings = {"check_forms": flags.check_forms if flags.check_forms > 1 else None, "enough": flags.enough}
    how: Row = {"choose": flags.choose} | {name: value for name, value in settings.items() if value is not None}
    made: list[Way] = []
    for num in flags.proposals:
        fields = {"proposals": num, **how}
        if flags.choose == "average":
            forms = _forms(layout, num, flags.seed, "--choose average")
            average = mdm_jax.symmetric_average(model.denoiser, mask_id=layout.mask_id, **forms)
            averaged = Model(model.config, model.params, average, model.task)
            made.append(Way(f"{num} forms", _times(num), fields, averaged))
        else:
            made.append(Way(f"{num} proposals", _keeper(flags, model, layout, num), fields, model))
    return made


def _times(num: int) -> Callable[[Decode], Decode]:
    """A decoder of an averaged network -> the same, with the calls of the network itself."""

    def counted(decode: Decode, keys: Array, x_init: Array) -> SampleResult:
        found = decode(keys, x_init)
        return found._replace(nfe=num * found.nfe)

    return lambda decode: functools.partial(counted, decode)


def _without_chance(flags: EvaluateFlags) -> Iterator[str]:
    """The orders named that give the same answer each time; one of the user's own may draw."""
    if not flags.noise and not flags.temperature:
        yield from (name for name in flags.oracle.split(",") if name in ORACLES and name != "random")


def _keeper(flags: EvaluateFlags, model: Model, layout: Layout, num: int) -> Callable[[Decode], Decode]:
    options: dict[str, Any] = {}
    if flags.check is not None:
        assert layout.mask_id is not None
        rank: Rank = functools.partial(
            mdm_jax.pseudo_log_likelihood,
            skipping(model),
            model.params,
            mask_id=layout.mask_id,
            num_calls=flags.check,
        )
        if flags.check_forms > 1:
            rank = mdm_jax.symmetric_rank(rank, **_forms(layout, flags.check_forms, flags.seed + 1, "--check-forms"))
        options |= {"rank": rank, "enough": flags.enough}
    if flags.choose == "symmetric":
        options |= _forms(layout, num, flags.seed, "--choose symmetric")
        return lambda decode: functools.partial(mdm_jax.symmetric_sample, decode, **options)
    keep: Callable[..., SampleResult] = mdm_jax.stable_sample if flags.choose == "stable" else mdm_jax.best_sample
    return lambda decode: functools.partial(keep, decode, num=num, **options)


def _forms(layout: Layout, num: int, seed: int, flag: str) -> dict[str, Any]:
    """So many symmetries, the first of which changes nothing."""
    if not isinstance(layout, Symmetric):
        raise InputError(f"the layout {layout.name} names no symmetries: {flag} is not for it")
    positions, tokens = layout.symmetries(num, seed)
    return {"positions": positions, "tokens": tokens}
