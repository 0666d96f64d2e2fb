"""Partial-order reduction loses no outcome: it is compared with the whole tree on random programs."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import pytest

from continuum_conformance.explore.reduction import REAL_TIME, Move, Tree
from continuum_conformance.explore.schedule import Choice, Chooser, Execution, walk

Program = dict[str, list[tuple[str, str]]]
"""Each worker's instructions: r, w (of a variable), + and - (of a lock), call and return."""

WHOLE = 4000
"""Schedules of a whole tree, at most; larger ones are left out."""

TOUCHES = {"r": False, "w": True, "return": True, "call": False}


@dataclass
class Machine:
    """Runs a program, one instruction at a time; a lock's release is part of the instruction before it."""

    program: Program
    reduced: bool
    coarse: int = 0
    """0: touches are told exactly; else some are told as more than they are, and all locks as one."""
    outcomes: set[Hashable] = field(default_factory=set)

    def attempt(self, chooser: Chooser) -> tuple[Execution, None]:
        execution = Execution()
        at = dict.fromkeys(self.program, 0)
        values: dict[str, object] = {}
        holders: dict[str, str] = {}
        seen: list[object] = []
        reads: dict[str, list[object]] = {worker: [] for worker in self.program}
        last: str | None = None
        while True:
            able = [
                worker
                for worker, place in at.items()
                if place < len(self.program[worker]) and self._free(self.program[worker][place], holders)
            ]
            if not able:
                break
            names = sorted(able, key=lambda worker: (worker != last, worker))
            choice = -1
            chosen = names[0]
            if len(names) > 1:
                taken = chooser(names, names[0] == last)
                chosen = names[taken]
                execution.choices.append(Choice(tuple(names), taken, names[0] == last))
                choice = len(execution.choices) - 1
            last = chosen
            kind, name = self.program[chosen][at[chosen]]
            touch = (
                (f"lock {name}", True)
                if kind == "+"
                else (REAL_TIME, TOUCHES[kind])
                if name == ""
                else (name, TOUCHES[kind])
            )
            execution.moves.append(
                Move(chosen, self._told(touch, len(self.program[chosen]) + at[chosen]), choice)
            )
            match kind:
                case "+":
                    holders[name] = chosen
                case "r":
                    reads[chosen].append(values.get(name))
                case "w":
                    values[name] = (chosen, at[chosen])
                case "call":
                    seen.append(("call", chosen, frozenset(x for x in seen if x[0] == "return")))  # type: ignore[index]
                case "return":
                    seen.append(("return", chosen))
            at[chosen] += 1
            while at[chosen] < len(self.program[chosen]) and self.program[chosen][at[chosen]][0] == "-":
                lock = self.program[chosen][at[chosen]][1]
                del holders[lock]
                execution.moves.append(Move(chosen, self._told((f"lock {lock}", True), 1), releases=True))
                at[chosen] += 1
        stuck = tuple(worker for worker, place in at.items() if place < len(self.program[worker]))
        for worker in stuck:  # what it would do next, if it could
            execution.moves.append(
                Move(worker, self._told((f"lock {self.program[worker][at[worker]][1]}", True), 1))
            )
        calls = frozenset(x for x in seen if x[0] == "call")  # type: ignore[index]
        outcome = (
            tuple(sorted(values.items())),
            tuple((worker, tuple(read)) for worker, read in sorted(reads.items())),
            stuck,
            calls,
        )
        self.outcomes.add(outcome)
        if not self.reduced:
            execution.moves.clear()
        return execution, None

    def _told(self, touch: tuple[str, bool], number: int) -> frozenset[tuple[str, bool]] | None:
        if not self.coarse or touch[0] == REAL_TIME:
            return frozenset({touch})
        if touch[0].startswith("lock"):
            return frozenset({("lock any", True)})
        kind = (number * 7 + self.coarse) % 4
        return (frozenset({touch}), frozenset({("*", touch[1])}), frozenset({("*", True)}), None)[kind]

    @staticmethod
    def _free(instruction: tuple[str, str], holders: dict[str, str]) -> bool:
        return instruction[0] != "+" or instruction[1] not in holders


def random_program(source: random.Random) -> Program:
    workers = "AB" if source.random() < 0.5 else "ABC"
    length = 5 if len(workers) == 2 else 3
    program: Program = {}
    for worker in workers:
        body: list[tuple[str, str]] = []
        held: list[str] = []
        for _ in range(source.randint(1, length)):
            kind = source.choice("rrww+")
            if kind != "+":
                body.append((kind, source.choice("xyz")))
            elif len(held) < 2:
                lock = source.choice([lock for lock in "KL" if lock not in held])
                body.append(("+", lock))
                held.append(lock)
            if held and source.random() < 0.3:
                body.append(("-", held.pop()))
        body.extend(("-", lock) for lock in reversed(held))
        if source.random() < 0.5:
            body = [("call", ""), *body, ("return", "")]
        program[worker] = body
    return program


def explored(program: Program, *, reduced: bool, coarse: int = 0) -> tuple[set[Hashable], int]:
    machine = Machine(program, reduced, coarse)
    walked = walk(machine.attempt, bound=None, limit=None if reduced else WHOLE)
    assert walked.exhausted or not reduced
    return machine.outcomes, walked.runs


@pytest.mark.parametrize("part", range(4))
def test_the_reduced_tree_shows_every_outcome_of_the_whole(part: int) -> None:
    runs = whole_runs = 0
    for seed in range(60):
        program = random_program(random.Random(1000 * part + seed))
        whole, of_whole = explored(program, reduced=False)
        if of_whole == WHOLE:
            continue
        few, of_few = explored(program, reduced=True)
        assert few == whole, program
        coarsely, _ = explored(program, reduced=True, coarse=seed + 1)
        assert coarsely == whole, (program, seed + 1)
        runs, whole_runs = runs + of_few, whole_runs + of_whole
    assert runs < whole_runs / 5  # it does reduce


def critical(*names: str) -> list[tuple[str, str]]:
    return [("+", "K"), *((kind, name) for name in names for kind in "rw"), ("-", "K")]


@pytest.mark.parametrize(("workers", "orders"), [("AB", 2), ("ABC", 6)])
def test_sections_under_one_lock_take_as_many_runs_as_they_have_orders(workers: str, orders: int) -> None:
    program = {worker: critical("x", "y") for worker in workers}
    outcomes, runs = explored(program, reduced=True)
    assert len(outcomes) == orders
    assert runs <= orders + 2


def test_steps_of_unknown_effect_depend_on_all_others() -> None:
    tree = Tree()
    moves = [Move("A", frozenset({("x", False)}), 0), Move("B", None, -1)]
    assert tree.learn([("A", "B")], (0,), moves) == [(0, 1)]
    moves = [Move("A", frozenset({("x", False)}), 0), Move("B", frozenset({("y", True)}), -1)]
    assert Tree().learn([("A", "B")], (0,), moves) == []


def test_everything_is_all_but_real_time() -> None:
    everything: Sequence[Move] = [
        Move("A", frozenset({("*", True)}), 0),
        Move("B", frozenset({("x", False)}), -1),
    ]
    assert Tree().learn([("A", "B")], (0,), everything) == [(0, 1)]
    calls = [Move("A", frozenset({("*", True)}), 0), Move("B", frozenset({(REAL_TIME, False)}), -1)]
    assert Tree().learn([("A", "B")], (0,), calls) == []
