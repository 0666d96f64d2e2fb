"""Taking stored data apart: each value with its type, and an error that names what is missing or wrong."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

__all__ = ["StoredObject"]

T = TypeVar("T")


class StoredObject:
    """One JSON object, whose values are taken out with their types."""

    def __init__(self, data: object, name: str) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"this is no report: {name} is no JSON object")
        self.data = data
        self.name = name

    def get(self, key: str, kind: type[T]) -> T:
        """The value under a key, which is of this type. Raises ``ValueError``."""
        value = self.data.get(key)
        if not self.holds(key, kind) or not isinstance(value, kind):
            raise ValueError(f"this is no report: {_name_of(kind)} is missing under {key!r} of {self.name}")
        return value

    def moment(self, key: str) -> int | None:
        """An integer, or None."""
        return None if self.data.get(key) is None else self.get(key, int)

    def flag(self, key: str) -> bool:
        """A truth value; what is missing is false."""
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise ValueError(f"this is no report: {key!r} of {self.name} is neither true nor false")
        return value

    def holds(self, key: str, kind: type[object]) -> bool:
        """Whether there is a value of this type."""
        value = self.data.get(key)
        return isinstance(value, kind) and not isinstance(value, bool)

    def optional(self, key: str) -> str | None:
        """A text, or None where there is none."""
        return None if self.data.get(key) is None else self.get(key, str)

    def number(self, key: str) -> float:
        """A number, whole or not."""
        return float(self.get(key, int)) if self.holds(key, int) else self.get(key, float)

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        values = self.get(key, list)
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"this is no report: {key!r} of {self.name} holds other things than text")
        return values

    def one_of(self, key: str, choices: Any) -> Any:
        """A text that is one of a ``Literal``'s."""
        value = self.get(key, str)
        if value not in get_args(choices):
            raise ValueError(f"this is no report: {key!r} of {self.name} is {value!r}")
        return value


def _name_of(kind: type[object]) -> str:
    """A JSON type in words."""
    return {str: "a text", int: "an integer", float: "a number", list: "a list", dict: "an object"}[kind]
