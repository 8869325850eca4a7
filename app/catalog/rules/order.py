"""The order of rules: which positions change so that one rule is tried earlier or later. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Rules are tried by position, then by name."""

    position: int
    name: str


def moved(places: Sequence[Place], name: str, steps: int) -> dict[str, int]:
    """The new positions of the rules that must change so that the named one moves by that many places; a negative
    number moves it up. The others keep their order, and their positions where they can.
    """
    ordered = sorted(places)
    at = next(index for index, place in enumerate(ordered) if place.name == name)
    rule = ordered.pop(at)
    to = min(max(at + steps, 0), len(ordered))
    if to == at:
        return {}
    # It takes the position of the rule that it passes; later ones make room if names do not decide.
    passed = ordered[to] if steps < 0 else ordered[to - 1]
    ordered.insert(to, Place(passed.position, rule.name))
    for index in range(1, len(ordered)):
        before, place = ordered[index - 1], ordered[index]
        if place < before:
            ordered[index] = Place(before.position + (place.name < before.name), place.name)
    stored = {place.name: place.position for place in places}
    return {place.name: place.position for place in ordered if place.position != stored[place.name]}
