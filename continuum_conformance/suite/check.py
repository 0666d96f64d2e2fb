"""The check: preflight, the plan, running it, and a verdict for every clause.

Verdicts are exact. A violation is a proof and fails its clauses at once. A clause passes when every test of the
plan that names it was finished without one; what did not finish is never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from continuum_conformance.contract.clauses import CLAUSES, Clause, in_force
from continuum_conformance.harness import HarnessError
from continuum_conformance.model import Kind
from continuum_conformance.suite import chapters, machine
from continuum_conformance.suite.faults import chapter as faults
from continuum_conformance.suite.faults import (
    clocks,
    ending,
    exhausting,
    failover,
    full,
    torn,
    waiting,
    zombies,
)
from continuum_conformance.suite.faults.again import of_test
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.races import chapter as races
from continuum_conformance.suite.races import first_use
from continuum_conformance.suite.races.levels import level_of
from continuum_conformance.suite.races.scouting import scout
from continuum_conformance.suite.replay import minimise
from continuum_conformance.suite.testing import (
    PROFILES,
    Profile,
    Result,
    SuiteTest,
    Untried,
    registered,
    run_test,
)
from continuum_conformance.suite.violation import Violation

__all__ = [
    "Judgement",
    "Plan",
    "PreflightFailure",
    "exit_code",
    "judge",
    "preflight",
    "run_check",
    "tests_for",
    "verdict",
]

_LOADED = (
    chapters,
    machine,
    races,
    faults,
    clocks,
    waiting,
    ending,
    exhausting,
    zombies,
    failover,
    full,
    torn,
)

MAX_HANGS = 4
"""So many tests may end in a hang; the rest is not run, since each costs its time limit."""

Progress = Callable[[int, int, str], None]


class PreflightFailure(Exception):
    """The adapter cannot be checked at all; the message is the one diagnosis, ``detail`` shows where."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass(frozen=True)
class Plan:
    """What a check tries.

    Attributes:
        profile: how much.
        seed: all choices depend on it alone.
        only: the clauses that are asked for; None for all.
        expected: clauses that are expected to fail, with the reason.
        first: end at the first MUST that fails.
    """

    profile: Profile
    seed: int
    only: tuple[str, ...] | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


@dataclass(frozen=True)
class Judgement:
    """What became of one clause.

    Attributes:
        clause: the clause.
        verdict: passed, failed, unsupported, not_applicable, advice, inconclusive or not_run.
        message: what was found, or why the clause was not judged.
        violation: the proof, where there is one.
        exact: whether the proof came back every time it was replayed.
        seconds: how long the clause's tests took.
        expected: the reason why its failure is expected, if it is.
    """

    clause: Clause
    verdict: str
    message: str = ""
    violation: Violation | None = None
    exact: bool = True
    seconds: float = 0.0
    expected: str | None = None


def preflight(session: Session) -> None:
    """Open, start, read, close: one diagnosis rather than a thousand identical errors.

    Raises:
        PreflightFailure: when the adapter cannot be opened or closed.
    """
    try:
        session.handle("A")
        session.handle("B")
    except HarnessError as error:
        raise PreflightFailure(f"the adapter cannot be opened: {error}", error.detail) from error
    lab = Lab(session)
    run = lab.run()
    if getattr(session.subject.harness, "guessed", False):
        probe = lab.ask("start_run", run_id=f"run-{lab.salt}", workflow="preflight", input=None)
        if probe.error == "InvalidArgument":
            session.withdraw("opaque_run_ids")
        session.remarks["the journal has no `capabilities`; they were told from its methods"] += 1
        lab = Lab(session)
        run = lab.run()
    started = lab.ask("start_run", run_id=run.run_id, workflow="preflight", input={"n": 1})
    if not started.ok:
        return  # RUN-1 will say so, with a counterexample
    elsewhere = lab.ask("get_run", run_id=run.run_id, on="B")
    if elsewhere.kind is Kind.VALUE and elsewhere.value is None:
        session.single_handle = True
    try:
        session.close("B")
        session.reopen("A")
    except HarnessError as error:
        raise PreflightFailure(
            f"the adapter cannot be closed and opened again: {error}", error.detail
        ) from error


def tests_for(capabilities: frozenset[str], plan: Plan) -> list[SuiteTest]:
    """The tests of a plan, in the order in which they run."""
    chosen = []
    for test in registered():
        if test.thorough and not plan.profile.thorough:
            continue
        if not test.applies(capabilities):
            continue
        if plan.only is not None and not set(plan.only) & set(test.clauses):
            continue
        if any(in_force(CLAUSES[clause]) for clause in test.clauses):
            chosen.append(test)
    return chosen


def run_check(
    session: Session,
    plan: Plan,
    progress: Progress = lambda _done, _total, _label: None,
    results: list[Result] | None = None,
) -> list[Result]:
    """Carry out a plan. What was not reached has no result.

    Args:
        session: the adapter, after `preflight`.
        plan: what to try.
        progress: called before each test with how many are done, how many there are, and the test's clause.
        results: filled as the tests end and returned, so that an interrupted check keeps what it has.

    Raises:
        HarnessError: when a handle cannot be opened any more.
    """
    tests = tests_for(session.capabilities, plan)
    results = [] if results is None else results
    if plan.first and plan.only is None:
        progress(0, len(tests), "CON-1")
        found = next(filter(_fails, _likeliest(session, tests, plan)), None)
        if found is not None:
            results.append(found)
            return results
    for number, test in enumerate(tests):
        progress(number, len(tests), test.clauses[0])
        result = judge_test(test, session, plan)
        results.append(result)
        if session.hangs >= MAX_HANGS:
            break
        if plan.first and _fails(result):
            break
    progress(len(tests), len(tests), "")
    return results


def _likeliest(session: Session, tests: list[SuiteTest], plan: Plan) -> Iterator[Result]:
    """What finds most for its time, before what takes longer: races in two looks, faults, calls in sequence.

    Where each run of a race is costly, all else comes before them; where each call is (a server's), the calls in
    sequence come last, as they do in the plan. What a plain sequence of calls shows too is left to the tests of
    sequences, which say more of it.
    """
    quick = replace(plan, profile=PROFILES["quick"])
    glance = replace(quick.profile, shrinks=0)
    several = [test for test in tests if FAULTS in test.body.__module__ or test.name in EARLY]
    early = sorted((test for test in several if test.name in EARLY), key=lambda test: EARLY.index(test.name))
    late = [test for test in several if test not in early]
    calls = [test for test in tests if not test.program and test not in several]
    level = level_of(session)
    parts: list[Sequence[SuiteTest] | int] = [0, early, calls, 1, late]
    if level.costly:
        parts = [early, calls, 0, late]
    elif level.name == "statements":
        parts = [0, early, 1, late]
    untried = [test for test in registered() if test.body is machine.program]
    for part in parts:
        found, plain = None, untried
        if isinstance(part, int):
            with suppress(Violation):  # in a set-up: the tests that come next say what is wrong
                found = scout(session, tests, plan.seed, part)
            if found is None or found.violation is None:
                continue
            # after a hang the store may be stuck, and no other test have a chance
            plain = [] if found.violation.hang else [*untried, *_about(found.violation, tests)]
        for test in plain:
            met = run_test(test, session, glance, plan.seed).violation
            if met is not None:
                yield from (judge_test(each, session, quick) for each in (*_about(met, tests), test))
                return
        if found is not None:
            yield found
            return
        untried = []
        if not isinstance(part, int):
            yield from (judge_test(test, session, quick) for test in part)


def _about(found: Violation, tests: list[SuiteTest]) -> list[SuiteTest]:
    """The tests of sequences that are about what was found, the closest first."""
    about = [t for t in tests if not t.program and not t.whole and set(found.clauses) & set(t.clauses)]
    return sorted(about, key=lambda test: test.clauses[0] != found.clauses[0])


FAULTS = "suite.faults"
EARLY = tuple(
    body.__name__
    for body in (
        clocks.a_clock_that_jumps_under_a_lease_changes_nothing,
        clocks.what_is_takeable_stays_so_whatever_a_clock_does,
        faults.leases_and_tokens_outlive_their_client,
        zombies.a_process_that_lost_its_lease_is_fenced_out,
        ending.a_cancelled_call_is_whole_or_not_at_all,
        faults.what_was_acknowledged_outlives_its_client,
        torn.a_torn_log_loses_no_more_than_its_last_operation,
        full.a_full_server_loses_nothing,
        exhausting.a_full_disk_loses_nothing,
        faults.an_operation_whose_connection_dies_is_whole_or_not_at_all,
        waiting.a_lease_that_waited_for_a_foreign_lock_gets_its_whole_ttl,
        clocks.a_client_whose_clock_is_off_changes_nothing,
        first_use.the_stores_first_use_by_several_at_once,
        faults.what_was_acknowledged_outlives_the_server,
        exhausting.many_threads_share_one_handle,
        races.free_threads_never_meet_contention,
        zombies.a_process_that_was_stopped_does_no_harm,
    )
)
"""Those that find most for their time, in that order, as measured over tests/faulty and tests/racing."""


def judge_test(test: SuiteTest, session: Session, plan: Plan) -> Result:
    """Run one test; make its counterexample small, and find out whether it comes back."""
    try:
        result = run_test(test, session, plan.profile, plan.seed)
        found = result.violation
        if found is not None and not found.hang and found.steps and found.race is None:
            if test.whole:
                result.violation = of_test(found, test)
                again = run_test(test, session, plan.profile, plan.seed).violation
                result.exact = again is not None
            elif found.aspect is not None:
                result.violation, result.exact = minimise(session, found, test.clauses)
            else:  # only the test can judge it
                again = run_test(test, session, plan.profile, plan.seed).violation
                result.exact = again is not None and again.clauses == found.clauses
    except HarnessError as error:
        result = Result(test, error=f"{error}")
    return result


def _fails(result: Result) -> bool:
    return result.violation is not None and any(CLAUSES[c].level == "MUST" for c in result.violation.clauses)


def judge(session: Session, plan: Plan, results: list[Result]) -> list[Judgement]:
    """A verdict for every clause of the plan, and for every other one that was broken."""
    _drop_assumptions(results)
    proofs: dict[str, tuple[Violation, bool]] = {}
    for result in results:
        found = result.violation
        for clause in found.clauses if found is not None else ():
            if found is not None and (clause not in proofs or _better(found, result, proofs[clause], clause)):
                proofs[clause] = (found, result.exact)
    if session.single_handle:
        proofs.setdefault("APP-10", (_separate_stores(), True))
    judgements = []
    for entry in CLAUSES.values():
        asked = plan.only is None or entry.id in plan.only
        if not (asked and in_force(entry)) and entry.id not in proofs:
            continue
        if entry.id == "LOD-5" and not plan.profile.thorough and plan.only is None:
            continue  # opt-in: it does not count until it is asked for
        judgements.append(_judge_clause(entry, session, plan, results, proofs.get(entry.id)))
    return judgements


SAME_FAULT = 3
"""Tests about so many different clauses that come down to the same calls have met one fault, which is none of theirs."""


def _drop_assumptions(results: list[Result]) -> None:
    """Leave a fault that many tests ran into to the clauses that the model cites for it.

    A run that is born in the wrong state fails nearly every test; that each of their clauses is broken does not
    follow. What they are about could not be tried.
    """
    about: dict[tuple[object, ...], set[str]] = {}
    for result in results:
        if result.violation is not None:
            about.setdefault(result.violation.shape, set()).add(result.test.clauses[0])
    for result in results:
        found = result.violation
        if found is None or not found.assumed or len(about[found.shape]) < SAME_FAULT:
            continue
        cited = tuple(clause for clause in found.clauses if clause not in found.assumed)
        if cited:
            found.clauses = cited


def _better(found: Violation, result: Result, best: tuple[Violation, bool], clause: str) -> bool:
    """Whether a proof tells more of a clause than the best so far: one that comes back, its own test's, the smaller."""
    known, exact = best
    if result.exact != exact:
        return result.exact
    own = found.clauses[0] == clause and clause in result.test.clauses
    other = known.clauses[0] == clause
    if own != other:
        return own
    return found.size < known.size


def _separate_stores() -> Violation:
    return Violation(
        ("APP-10",),
        "a run that was started through one handle is unknown to another: the harness's open() gives every handle a store of its own, or the adapter keeps its data per handle",
    )


def _judge_clause(
    clause: Clause, session: Session, plan: Plan, results: list[Result], proof: tuple[Violation, bool] | None
) -> Judgement:
    naming = [result for result in results if clause.id in result.test.clauses]
    seconds = sum(result.seconds / len(result.test.clauses) for result in naming)
    expected = plan.expected.get(clause.id)
    if proof is not None:
        violation, exact = proof
        verdict = "failed" if clause.level == "MUST" else "advice"
        return Judgement(clause, verdict, violation.message, violation, exact, seconds, expected)
    advice = [result.advice[clause.id] for result in results if clause.id in result.advice]
    if advice:
        return Judgement(clause, "advice", advice[0], seconds=seconds, expected=expected)
    if clause.capability not in ("core", *session.capabilities):
        withdrawn = clause.capability in session.subject.withdrawn
        how = "withdrawn for this run" if withdrawn else "not declared"
        return Judgement(clause, "unsupported", f"`{clause.capability}` is {how}", expected=expected)
    every = [test for test in registered() if clause.id in test.clauses]
    mine = [test for test in every if test.applies(session.capabilities)]
    if every and not mine:
        without = sorted({name for test in every for name in test.without & session.capabilities})
        why = (
            f"it is about adapters without {', '.join(without)}"
            if without
            else "none of its situations can arise"
        )
        return Judgement(clause, "not_applicable", why, expected=expected)
    skipped = [result.skipped for result in naming]
    untried = any(isinstance(reason, Untried) for reason in skipped)
    if naming and all(skipped) and not untried and len(naming) == len(mine):
        return Judgement(clause, "not_applicable", naming[0].skipped, expected=expected)
    message = _unfinished(plan, naming, mine, session)
    if message:
        return Judgement(clause, "not_run", message, seconds=seconds, expected=expected)
    return Judgement(clause, "passed", seconds=seconds, expected=expected)


def _unfinished(plan: Plan, naming: list[Result], mine: list[SuiteTest], session: Session) -> str:
    """Why a clause that nothing was found against cannot be called passed; empty when it can."""
    due = [test for test in mine if plan.profile.thorough or not test.thorough]
    if not due:
        return "it is tried in the thorough profile only: --profile thorough"
    for result in naming:
        if result.error or isinstance(result.skipped, Untried):
            return result.error or result.skipped
        if result.violation is not None:
            first = result.violation.clauses[0]
            return f"its test could not be finished, because {first} is broken; mend that first"
    ran = {result.test.name for result in naming}
    left = [test.name for test in due if test.name not in ran]
    if left and session.hangs >= MAX_HANGS:
        return f"the check ended after {MAX_HANGS} calls that did not come back; mend those first"
    if left:
        return "the check ended at the first failure (--first)" if plan.first else "it was not reached"
    return ""


def verdict(judgements: list[Judgement], plan: Plan) -> str:
    """``conforming``, ``nonconforming`` or ``incomplete``.

    Conforming means that every MUST of every declared capability passed and nothing was left out. An expected
    failure is a failure all the same.
    """
    musts = [judgement for judgement in judgements if judgement.clause.level == "MUST"]
    if any(judgement.verdict == "failed" for judgement in musts):
        return "nonconforming"
    if plan.only is not None or any(judgement.verdict in ("not_run", "inconclusive") for judgement in musts):
        return "incomplete"
    return "conforming"


def exit_code(judgements: list[Judgement]) -> int:
    """0 conforming, or all that was selected passed or failed as expected; 1 not conforming; 3 not completed.

    A clause that is listed as expected to fail may also be left unjudged because another one is broken.
    """
    failed = [j for j in judgements if j.verdict == "failed" and j.expected is None]
    stale = [j for j in judgements if j.verdict == "passed" and j.expected is not None]
    if failed or stale:
        return 1
    unfinished = [
        j
        for j in judgements
        if j.clause.level == "MUST" and j.verdict in ("not_run", "inconclusive") and j.expected is None
    ]
    return 3 if unfinished else 0
