"""Runs the whole check on one target, as the command does, and tells what came of it: python -m tests.unusual.drive."""

from __future__ import annotations

import argparse
import sys
import time

from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.suite.check import (
    Plan,
    judge,
    judge_test,
    preflight,
    run_check,
    tests_for,
    verdict,
)
from continuum_conformance.suite.lab import Session
from continuum_conformance.suite.stores import Stores
from continuum_conformance.suite.testing import PROFILES


def check(target, stores, profile="quick", seed=1, only=None, seeded=False):
    """(verdict, judgements, results, session) of one check.

    Args:
        seeded: only the tests whose data depend on the seed.
    """
    subject = Subject(target)
    stores.provide(subject)
    session = Session(subject)
    plan = Plan(PROFILES[profile], seed, only)
    try:
        preflight(session)
        if seeded:
            tests = [test for test in tests_for(session.capabilities, plan) if test.given or test.program]
            results = [judge_test(test, session, plan) for test in tests]
            judged = [one for one in judge(session, plan, results) if one.verdict != "not_run"]
        else:
            results = run_check(session, plan)
            judged = judge(session, plan, results)
    finally:
        session.close_all()
    return verdict(judged, plan), judged, results, session


def accusations(judged):
    """What stands against the adapter, a line each."""
    return [
        f"{one.clause.id} {one.verdict}: {one.message}"
        for one in judged
        if one.verdict in ("failed", "not_run", "inconclusive")
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--postgres", default="auto")
    parser.add_argument("--slowest", type=int, default=3)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    with Stores(args.postgres) as stores:
        for target in args.targets:
            full = target if "." in target.split(":")[0] else f"tests.unusual.{target}"
            for seed in args.seeds:
                started = time.perf_counter()
                try:
                    said, judged, results, session = check(
                        full, stores, args.profile, seed, tuple(args.only) if args.only else None
                    )
                except HarnessError as error:
                    print(f"{target} seed {seed}: HARNESS ERROR {error}\n{error.detail}")
                    continue
                seconds = time.perf_counter() - started
                slow = sorted(results, key=lambda one: -one.seconds)[: args.slowest]
                told = ", ".join(f"{one.test.name} {one.seconds:.1f}" for one in slow)
                advice = [one.clause.id for one in judged if one.verdict == "advice"]
                print(
                    f"{target} seed {seed}: {said} {seconds:.1f}s"
                    f" ops {session.statistics['operations']} advice {advice} remarks {dict(session.remarks)} [{told}]"
                )
                shown = 0
                for one in judged:
                    shown += one.verdict == "failed"
                    if shown <= 5 and one.verdict in ("failed", "not_run", "inconclusive"):
                        print(f"   {one.clause.id} {one.verdict} exact={one.exact}: {one.message}")
                        if one.violation is not None and args.steps:
                            for step in one.violation.steps[-6:]:
                                print("        ", str(step)[:300])
                            print(one.violation.detail)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
