"""Whether two mathematical answers are equal: the one home of math-verify."""

import logging

from mdm_jax.errors import of_extra


def check_installed() -> None:
    """MissingExtraError without math-verify."""
    with of_extra("llada"):
        import math_verify  # noqa: F401


def is_equal(reference: str, answer: str) -> bool:
    """Whether the answer that a text comes to is that of the reference: boxed, announced as final, or the last one.

    Must be called from the main thread, where a signal ends a comparison that takes over five seconds.
    """
    with of_extra("llada"):
        from math_verify import parse, verify
    for name in ("math_verify", "latex2sympy2_extended"):  # they log what cannot be parsed
        logging.getLogger(name).setLevel(logging.CRITICAL)
    gold, found = (parse(text) for text in (reference, answer))
    return bool(gold) and bool(found) and bool(verify(gold, found))
