"""Famous Zebra puzzles in token form."""

import dataclasses

from mdm_jax.data.checks import lookup
from mdm_jax.tasks.zebra.clues import Clues
from mdm_jax.tasks.zebra.english import Attribute
from mdm_jax.tasks.zebra.text import parse_puzzle


@dataclasses.dataclass(frozen=True)
class Riddle:
    """A puzzle with its own names.

    Attributes:
      name: the name in flags.
      text: the token form, a clue on each line.
      names: the names of the attributes and values.
      question: the question.
    """

    name: str
    text: str
    names: tuple[Attribute, ...]
    question: str

    @property
    def clues(self) -> Clues:
        """The puzzle, int8 `[clues, 4]`."""
        return parse_puzzle(self.text.splitlines(), self.name)


FISH = Riddle(
    name="fish",
    text="""
# the Brit lives in the red house
= LHS c 0 0 RHS c 1 0 CLUE_END
# the Swede keeps dogs
= LHS c 0 1 RHS c 4 0 CLUE_END
# the Dane drinks tea
= LHS c 0 2 RHS c 2 0 CLUE_END
# the green house is directly to the left of the white one
immediate-left LHS c 1 1 RHS c 1 2 CLUE_END
# coffee is drunk in the green house
= LHS c 1 1 RHS c 2 1 CLUE_END
# who smokes Pall Mall keeps birds
= LHS c 3 0 RHS c 4 1 CLUE_END
# Dunhill is smoked in the yellow house
= LHS c 1 3 RHS c 3 1 CLUE_END
# milk is drunk in the centre house
= LHS n 0 2 RHS c 2 2 CLUE_END
# the Norwegian lives in the first house
= LHS c 0 3 RHS n 0 0 CLUE_END
# who smokes Blend lives next to who keeps cats
nbr LHS c 3 2 RHS c 4 2 CLUE_END
# who keeps horses lives next to who smokes Dunhill
nbr LHS c 4 3 RHS c 3 1 CLUE_END
# who smokes Blue Master drinks beer
= LHS c 3 3 RHS c 2 3 CLUE_END
# the German smokes Prince
= LHS c 0 4 RHS c 3 4 CLUE_END
# the Norwegian lives next to the blue house
nbr LHS c 0 3 RHS c 1 4 CLUE_END
# who smokes Blend has a neighbour who drinks water
nbr LHS c 3 2 RHS c 2 4 CLUE_END
""",
    names=(
        Attribute("nationality", ("Brit", "Swede", "Dane", "Norwegian", "German"), "the {value}"),
        Attribute("colour", ("red", "green", "white", "yellow", "blue"), "the one in the {value} house"),
        Attribute("drink", ("tea", "coffee", "milk", "beer", "water"), "the one who drinks {value}"),
        Attribute("smoke", ("Pall Mall", "Dunhill", "Blend", "Blue Master", "Prince"), "the one who smokes {value}"),
        Attribute("pet", ("dogs", "birds", "cats", "horses", "fish"), "the one who keeps {value}"),
    ),
    question="Who keeps the fish?",
)
"""The riddle that is attributed to Einstein. The German keeps the fish."""

RIDDLES = {riddle.name: riddle for riddle in (FISH,)}


def get(name: str) -> Riddle:
    """The riddle called `name`.

    Raises:
      InputError: there is no such riddle.
    """
    return lookup("riddle", RIDDLES, name)
