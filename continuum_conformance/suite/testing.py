"""How a test of the suite is written, found and run.

A test is a function that takes a `Lab` and names the clauses that it checks::

    @checks("APP-5")
    def an_append_to_an_unknown_run_is_refused(lab: Lab) -> None:
        run = lab.run()
        run.append()
        run.look()

With ``given`` it takes data from Hypothesis as well. The command and the pytest plugin run the same functions
through `run_test`, so both give the same verdicts.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import Flaky, Unsatisfiable
from hypothesis.strategies import SearchStrategy

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.harness.bridge.dialogue import LeftOut
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.violation import Violation

__all__ = ["PROFILES", "Profile", "Result", "Search", "SuiteTest", "Untried", "checks", "run_test", "seed_of"]


@dataclass(frozen=True, slots=True)
class Profile:
    """How much is tried: a plan counted in examples, never in seconds."""

    name: str
    examples: int
    """Examples of a test that takes data."""
    programs: int
    """Random programs of the stateful machine."""
    program_length: int
    """Operations in one of them, at most."""
    shrinks: int
    """Further executions that are spent on making a counterexample smaller."""
    thorough: bool = False


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("quick", examples=6, programs=15, program_length=20, shrinks=150),
        Profile("standard", examples=20, programs=60, program_length=30, shrinks=400),
        Profile("thorough", examples=200, programs=600, program_length=50, shrinks=2000, thorough=True),
    )
}
"""The profiles by name."""


@dataclass(frozen=True)
class SuiteTest:
    """One test of the suite."""

    name: str
    clauses: tuple[str, ...]
    body: Callable[..., None]
    given: Mapping[str, Callable[[frozenset[str]], SearchStrategy[Any]]]
    cases: Callable[[frozenset[str]], Iterable[Mapping[str, Any]]] | None
    needs: frozenset[str]
    """Capabilities that it needs, beyond those of its clauses."""
    without: frozenset[str]
    """Capabilities that must not be declared."""
    thorough: bool
    """Whether it runs in the thorough profile only."""
    program: bool = False
    """Whether it is a stateful machine, which takes the session and drives itself."""
    weight: float = 1.0
    """The share of the profile's examples that it takes."""
    when: Callable[[Session], str] | None = None
    """Why it cannot be tried on this adapter here; empty when it can, `Untried` when that could be remedied."""
    whole: bool = False
    """Whether what it finds shows only within it, because more happens there than calls."""

    def applies(self, capabilities: frozenset[str]) -> bool:
        """Whether an adapter with these capabilities is given this test."""
        return self.needs <= capabilities and not self.without & capabilities


_REGISTRY: list[SuiteTest] = []


def registered() -> list[SuiteTest]:
    """The tests of all modules that were imported, in the order of the contract's clauses.

    ATM-3 comes first: an adapter that an error leaves broken (a lock that is kept, a connection that is lost) fails
    whatever is tried next, so its errors are tried while it is whole.
    """
    order = {clause: place for place, clause in enumerate(CLAUSES)}
    return sorted(
        _REGISTRY, key=lambda test: (test.program, test.clauses[0] != "ATM-3", order[test.clauses[0]])
    )


def checks(
    *clauses: str,
    given: Mapping[str, Callable[[frozenset[str]], SearchStrategy[Any]]] | None = None,
    cases: Callable[[frozenset[str]], Iterable[Mapping[str, Any]]] | None = None,
    needs: str = "",
    without: str = "",
    thorough: bool = False,
    program: bool = False,
    weight: float = 1.0,
    when: Callable[[Session], str] | None = None,
    whole: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a test, with the clauses that it checks, the closest first.

    Args:
        clauses: ids of the registry.
        given: Hypothesis strategies by parameter, each made from the adapter's capabilities.
        cases: all the values of the parameters that are tried, each in an example of its own.
        needs: capabilities, separated by blanks, that the adapter must declare beside the clauses' own.
        without: capabilities that the adapter must not declare.
        thorough: run in the thorough profile only.
        program: the body takes (session, profile, seed) and drives Hypothesis itself.
        weight: the share of the profile's examples that this test takes.
        when: says why the test cannot be tried on an adapter, with nothing when it can.
        whole: what it finds shows only within the test, because more happens there than calls.
    """
    for clause in clauses:
        if clause not in CLAUSES:
            raise ValueError(f"{clause} is no clause")

    def register(body: Callable[..., None]) -> Callable[..., None]:
        required = {CLAUSES[clause].capability for clause in clauses} - {"core"}
        _REGISTRY.append(
            SuiteTest(
                body.__name__,
                clauses,
                body,
                given or {},
                cases,
                frozenset(needs.split()) | (frozenset() if program else required),
                frozenset(without.split()),
                thorough,
                program,
                weight,
                when,
                whole,
            )
        )
        return body

    return register


class Untried(str):
    """Why a test was not carried out, with what its reader can do about that: its clauses are *not run*."""

    __slots__ = ()


CANNOT_BE_CARRIED = "its examples cannot be carried to another program in JSON"
"""Why a clause is not applicable to a program on the bridge."""


@dataclass
class Result:
    """What came of one test.

    Attributes:
        violation: the smallest counterexample that was found, if any.
        advice: what SHOULD clauses say, by clause.
        examples: how many examples ran.
        left_out: how many could not be carried to the adapter, which is another program.
        exact: whether the counterexample came back when it was tried again.
        error: why the test could not be carried out at all, if so.
        skipped: why there was nothing to carry out, if so; `Untried` when there would have been.
    """

    test: SuiteTest
    violation: Violation | None = None
    advice: dict[str, str] = field(default_factory=dict)
    examples: int = 0
    seconds: float = 0.0
    left_out: int = 0
    exact: bool = True
    error: str = ""
    skipped: str = ""


class _Enough(BaseException):
    """Ends Hypothesis's search: the counterexample is small enough, or each try costs a hang."""


def seed_of(test: str, seed: int) -> int:
    """The seed of one test: independent of which other tests run."""
    return zlib.crc32(f"{seed}:{test}".encode())


class Search:
    """The smallest violation so far, and how many further tries are left."""

    def __init__(self, result: Result, shrinks: int) -> None:
        self.result = result
        self.left = shrinks

    def begin(self) -> None:
        """Count one example. Ends the search when enough were spent on making the counterexample smaller."""
        if self.result.violation is not None:
            self.left -= 1
            if self.left < 0:
                raise _Enough
        self.result.examples += 1

    def leave_out(self) -> None:
        """The example that was begun cannot be carried to the adapter: it does not count."""
        self.result.examples -= 1
        self.result.left_out += 1

    def found(self, violation: Violation) -> None:
        """Keep a violation when it is the smallest. Ends the search when it was a hang: each costs its limit."""
        best = self.result.violation
        if best is None or (best.arranging, *best.size) > (violation.arranging, *violation.size):
            self.result.violation = violation
        if violation.hang:
            raise _Enough

    def example(self, run: Callable[[], Lab]) -> None:
        """Run one example; raises its `Violation`."""
        self.begin()
        try:
            lab = run()
        except LeftOut:
            self.leave_out()
            return
        except Violation as violation:
            self.found(violation)
            raise
        self.result.advice.update(lab.advice)


def hypothesis_settings(profile: Profile, examples: int) -> hypothesis.settings:
    """Settings under which a verdict depends on the seed alone."""
    return hypothesis.settings(
        max_examples=max(1, examples),
        stateful_step_count=profile.program_length,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def run_test(test: SuiteTest, session: Session, profile: Profile, seed: int) -> Result:
    """Run one test in full, and keep the smallest counterexample.

    What the adapter does never raises here. Raises `HarnessError` when its handles cannot be opened.
    """
    result = Result(test)
    search = Search(result, profile.shrinks)
    started = time.perf_counter()
    result.skipped = test.when(session) if test.when is not None else ""
    if result.skipped:
        return result
    own_seed = seed_of(test.name, seed)
    try:
        if test.program:
            test.body(session, profile, own_seed, search)
        elif test.given:
            _run_with_data(test, session, profile, own_seed, search)
        else:
            for case in test.cases(session.capabilities) if test.cases is not None else ({},):
                search.example(partial(_run_once, test, session, **case))
    except _Enough:
        pass
    except Violation as found:
        if result.violation is None:  # else it is kept in the result, smallest first
            result.violation = found
    except Flaky:
        result.exact = False
    except Unsatisfiable as error:
        result.error = f"no example could be made: {error}"
    if result.left_out and not result.examples and result.violation is None:
        result.skipped = CANNOT_BE_CARRIED
    session.left_out += result.left_out
    if result.violation is not None and result.violation.hang:
        session.hangs += 1
    session.statistics["examples"] += result.examples
    result.seconds = time.perf_counter() - started
    return result


def _run_once(test: SuiteTest, session: Session, **data: Any) -> Lab:
    lab = Lab(session, test.clauses, test.name)
    test.body(lab, **data)
    return lab


def _run_with_data(test: SuiteTest, session: Session, profile: Profile, seed: int, search: Search) -> None:
    strategies = {name: make(session.capabilities) for name, make in test.given.items()}

    def examples(**data: Any) -> None:
        search.example(lambda: _run_once(test, session, **data))

    run = hypothesis.given(**strategies)(examples)
    run = hypothesis_settings(profile, round(profile.examples * test.weight))(run)
    hypothesis.seed(seed)(run)()
