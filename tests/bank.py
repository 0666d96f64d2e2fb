"""How a module of adapters, wrong ones and right ones, says which there are."""

from __future__ import annotations

import sys

__all__ = ["Bank"]


class Bank:
    """The adapters of one module.

    Each is a class of journals. It gets a harness of its own, which is put into the module as its name and
    ``Harness``, so that other processes find it there.

    Attributes:
        WRONG: the target of each wrong adapter, with the clauses that it may be reported under.
        SEEN_IN: the address of a public thread about a fault of this kind, for those that are modelled on one.
        RIGHT: the targets of those that must not be accused.
        ADVISED: the target of each that leaves a SHOULD, with the clause.
    """

    def __init__(self, module, harness):
        self._module, self._harness = module, harness
        self.WRONG: dict[str, tuple[str, ...]] = {}
        self.SEEN_IN: dict[str, str] = {}
        self.RIGHT: list[str] = []
        self.ADVISED: dict[str, str] = {}

    def register(self, cls, harness=None):
        """The target of an adapter that is in none of the tables."""
        name = f"{cls.__name__}Harness"
        body = {"journal_class": cls, "__module__": self._module}
        setattr(sys.modules[self._module], name, type(name, (harness or self._harness,), body))
        return f"{self._module}:{name}"

    def wrong(self, *clauses, seen_in="", harness=None):
        """Wrong, under one of these clauses."""

        def register(cls):
            target = self.register(cls, harness)
            self.WRONG[target] = clauses
            if seen_in:
                self.SEEN_IN[target] = seen_in
            return cls

        return register

    def right(self, cls=None, *, harness=None):
        """Not to be accused."""

        def register(cls):
            self.RIGHT.append(self.register(cls, harness))
            return cls

        return register if cls is None else register(cls)

    def advised(self, clause, *, harness=None):
        """Conforming, but advised against under a SHOULD."""

        def register(cls):
            self.ADVISED[self.register(cls, harness)] = clause
            return cls

        return register
