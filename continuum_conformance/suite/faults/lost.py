"""What asynchronous replication loses: shown with the adapter, told to whoever operates it.

That is a finding about a deployment. No adapter can keep what its server acknowledges before a standby has it, so no
clause fails for it. The loss is no matter of luck: the standby gets nothing while the operations are acknowledged.
"""

from __future__ import annotations

from continuum_conformance.contract.records import Lease, RunState
from continuum_conformance.model import Kind, Outcome
from continuum_conformance.suite.faults.failover import failing_over
from continuum_conformance.suite.lab import HOUR, Lab, RunUnderTest, Session

__all__ = ["told_of_failover"]

REMEDY = (
    "This is the deployment's doing, and no adapter can prevent it: without a synchronous standby PostgreSQL"
    " acknowledges what only the primary has. Where that must not be lost, name a standby in"
    " synchronous_standby_names, leave synchronous_commit at on, and promote no other standby. Where it may be lost,"
    " stop every worker before the standby is promoted, so that none goes on under a token that is given again."
)


def told_of_failover(session: Session, *, kept: bool) -> list[str]:
    """Lose a primary under asynchronous replication, and tell what both kinds of replication mean for this adapter.

    Args:
        session: the adapter, with a pair of servers.
        kept: whether synchronous replication was tried and lost nothing.

    Returns:
        Sentences for an operator.

    Raises:
        HarnessError: the adapter or the servers cannot be had.
    """
    killed = session.faults["primaries killed, and standbys promoted"]
    lost = _lost(session)
    paragraphs = []
    if kept and killed:
        paragraphs.append(
            f"Synchronous replication (synchronous_standby_names set, synchronous_commit on): a primary was killed"
            f" and its standby promoted {killed} times; all that was acknowledged was there, and no token was given twice."
        )
    told = "Asynchronous replication (PostgreSQL's default): a primary was killed while its standby was a moment behind."
    if not lost:
        return [*paragraphs, f"{told} All that this adapter had acknowledged was there all the same."]
    gone = f"{told} These were acknowledged to this adapter's callers, and are gone: {'; '.join(lost)}."
    return [*paragraphs, gone, REMEDY]


def _lost(session: Session) -> list[str]:
    with failing_over(session) as pair:
        lab = Lab(session, (), "asynchronous replication")
        leases = "leases" in lab.capabilities
        paid, finished, held = (lab.started(events=1) for _ in range(3))
        born = lab.run()
        session.handle("B")
        pair.replicate(synchronous=False)
        with pair.lagging():
            appended = _append(lab, paid, "paid")
            completed = lab.ask("complete", run_id=finished.run_id, result={"ok": True}, lease_token=None)
            started = lab.ask("start_run", run_id=born.run_id, workflow="checkout", input=None)
            granted = _acquire(lab, held, "alice") if leases else None
            pair.fail_over()
        session.faults["primaries killed, and standbys promoted"] += 1
        session.renew_handles()
        lost = []
        if _done(appended) and len(_load(lab, paid)) < 2:
            lost.append("an event that was appended (the history ends before it)")
        state = _state(lab, finished)
        if _done(completed) and state is not RunState.COMPLETED:
            lost.append(f"a run's completion with its result (the run is {state.value if state else 'gone'})")
        if _done(started) and _state(lab, born) is None:
            lost.append("a run that was started (nobody knows of it)")
        if isinstance(granted, Lease):
            lost += _fence(lab, held, granted)
        return lost


def _fence(lab: Lab, run: RunUnderTest, granted: Lease) -> list[str]:
    """What became of a lease that was granted before the failover."""
    again = _acquire(lab, run, "bob")
    if again is None:
        return []
    if again.token > granted.token:
        return [f"a lease (token {granted.token} was alice's; bob got {again.token} while she held it)"]
    told = f"a lease, and with it the fence: token {granted.token} was alice's, and was given to bob again"
    if _done(_append(lab, run, "charged", granted.token)):
        told += ", and an append of alice's under it is accepted while bob holds the run"
    return [told]


def _done(outcome: Outcome) -> bool:
    return outcome.kind is Kind.VALUE


def _append(lab: Lab, run: RunUnderTest, what: str, token: int | None = None) -> Outcome:
    return lab.ask("append", run_id=run.run_id, event={"type": what}, lease_token=token)


def _acquire(lab: Lab, run: RunUnderTest, owner: str) -> Lease | None:
    found = lab.ask("acquire", run_id=run.run_id, owner=owner, ttl=HOUR).value
    return found if isinstance(found, Lease) else None


def _load(lab: Lab, run: RunUnderTest) -> list[object]:
    found = lab.ask("load", run_id=run.run_id).value
    return found if isinstance(found, list) else []


def _state(lab: Lab, run: RunUnderTest) -> RunState | None:
    return getattr(lab.ask("get_run", run_id=run.run_id).value, "state", None)
