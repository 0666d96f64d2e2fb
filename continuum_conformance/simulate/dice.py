"""Seeded chance. Everything random in a simulation comes from here, and everything here from the seed.

Each part of the world throws dice of its own, by name: who leaves a worker out of a scenario changes nothing of what
the others throw, so that a failing scenario can be made smaller. Only ``random.Random.random`` is used, whose
numbers are the same under every version of Python, and no function whose last digit depends on a C library.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Dice"]

_Item = TypeVar("_Item")


class Dice:
    """Chance by seed and name, as in ``Dice(7, "worker", 2)``."""

    def __init__(self, seed: int, *name: object) -> None:
        self._random = random.Random("/".join(map(str, (seed, *name)))).random

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def whole(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def skewed(self, low: int, high: int) -> int:
        """An integer from low to high in which every doubling is about as likely: many small ones, some large."""
        doublings = (high // max(low, 1)).bit_length()
        least = max(low, 1) << self.whole(0, max(doublings - 1, 0))
        return max(low, min(high, self.whole(least, 2 * least)))

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of the items."""
        return items[int(self._random() * len(items))]
