"""TRM: durable terms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from continuum_conformance.contract.terms import canonical, shown
from continuum_conformance.model import Kind
from continuum_conformance.suite.collisions import lookalikes, words_beside
from continuum_conformance.suite.data import (
    COLUMNS,
    FALSY,
    LOOKALIKES,
    RICH,
    SUBCLASSES,
    events,
    offenders,
    plain_terms,
    rich_terms,
)
from continuum_conformance.suite.lab import Lab, RunUnderTest
from continuum_conformance.suite.situations import each
from continuum_conformance.suite.testing import checks

MIB = 2**20


def positions(capabilities: frozenset[str]) -> tuple[str, ...]:
    """Where a term can stand."""
    steps = ("step",) if "snapshots" in capabilities else ()
    return ("input", "payload", "result", "error", *steps)


def _put(lab: Lab, where: str, term: Any, **how: Any) -> RunUnderTest:
    """Store a term at a place of a run that is otherwise fine, and give the run."""
    if where == "input":
        run = lab.run()
        run.start("checkout", term, **how)
        return run
    run = lab.started(events=1 if where == "step" else 0)
    acts: dict[str, Callable[[], Any]] = {
        "payload": lambda: run.append({"type": "step", "payload": term}, **how),
        "result": lambda: run.complete(term, **how),
        "error": lambda: run.fail(term, **how),
        "step": lambda: run.snapshot(0, {0: term}, **how),
    }
    acts[where]()
    return run


@checks(
    "TRM-1",
    given={"term": lambda _: plain_terms(), "where": lambda caps: st.sampled_from(positions(caps))},
    weight=3,
)
def a_plain_term_reads_back(lab: Lab, term: Any, where: str) -> None:
    _put(lab, where, term).look()


@checks("TRM-1", given={"event": events}, weight=2)
def an_event_reads_back(lab: Lab, event: dict[str, Any]) -> None:
    run = lab.started()
    run.append(event)
    run.append({"type": "after"})
    run.look()


def _large() -> dict[str, Any]:
    deep_list: Any = "bottom"
    deep_dict: Any = "bottom"
    deep_both: Any = 0
    for level in range(60):
        deep_list = [deep_list]
        deep_dict = {"down": deep_dict}
        deep_both = [deep_both] if level % 2 else {"k": deep_both}
    return {
        "nested lists": deep_list,
        "nested dicts": deep_dict,
        "nested lists and dicts": deep_both,
        "a mebibyte of text": "a" * MIB,
        "text of wide characters": "\U0001f600" * (MIB // 4),
        "a mebibyte of bytes": b"\xff" * MIB,
        "an integer of 4096 bits": (1 << 4096) - 1,
        "a negative integer of 4096 bits": -(1 << 4095),
        "a long list": list(range(5000)),
        "a wide dict": {f"key{number}": number for number in range(2000)},
        "neighbouring integers": [
            2**53,
            2**53 + 1,
            2**63,
            2**63 + 1,
            2**64 - 1,
            2**64,
            -(2**63),
            -(2**63) - 1,
        ],
        "floats": [0.1, 1e-320, 1.7976931348623157e308, 5e-324, -0.0, 0.0, 1e16, 123456789.123456789],
        "no numbers": [float("nan"), float("inf"), float("-inf")],
        "one and its likes": [1, True, 1.0, "1", b"1", [1], {"1": 1}],
        "empties": [[], {}, "", b"", [[]], [{}], {"": {}}],
        "texts": [
            "\0",
            "a\0b",
            "e\u0301",
            "\u00e9",
            "\ufeff",
            "\uffff",
            "\u2028",
            "\r\n",
            "'\"\\",
            "\U0010ffff",
        ],
        "keys": {"": 1, "\0": 2, "a.b": 3, "$": 4, "a b": 5, "\u00e9": 6, "e\u0301": 7, "1": 8, "None": 9},
    }


@checks("TRM-1", cases=each(where=positions, what=tuple(_large())))
def a_large_or_awkward_term_reads_back(lab: Lab, where: str, what: str) -> None:
    _put(lab, where, _large()[what]).look()


@checks("TRM-1", cases=each(where=("payload", "result"), term=lambda _: range(len(FALSY))))
def a_falsy_term_reads_back(lab: Lab, where: str, term: int) -> None:
    _put(lab, where, FALSY[term]).look()


@checks("TRM-1", cases=each(where=("input", "payload"), shape=("list", "dict", "mixed"), depth=(500, 5_000)))
def what_is_too_deep_is_refused_not_crashed_on(lab: Lab, where: str, shape: str, depth: int) -> None:
    term: Any = 0
    for level in range(depth):
        term = [term] if shape == "list" or (shape == "mixed" and level % 2) else {"k": term}
    other = lab.started()
    run = lab.run()
    if where == "input":
        run.start("checkout", term)
    else:
        run = lab.started()
        run.append({"type": "step", "payload": term})
    run.look()
    other.append()
    other.look()


@checks("TRM-1")
def a_term_that_looks_like_an_encoding_reads_back(lab: Lab) -> None:
    run = lab.started()
    for number, term in enumerate(LOOKALIKES):
        run.append({"type": "step", "payload": term})
        run.append({"type": "step", "payload": {"inner": [term, term]}})
        if number % 12 == 11:
            run.load()
    run.look()
    other = lab.run()
    other.start("checkout", {str(number): term for number, term in enumerate(LOOKALIKES)})
    other.look()


@checks("TRM-1", cases=each(where=("input", "payload")))
def a_term_that_looks_like_the_adapters_own_encoding_reads_back(lab: Lab, where: str) -> None:
    for term in lookalikes(lab):
        lab.count("terms that look like the adapter's own encoding")
        _put(lab, where, term).look()
        _put(lab, where, {"inner": [term]}).look()


@checks("TRM-1")
def words_of_the_adapters_own_encoding_read_back(lab: Lab) -> None:
    run = lab.started()
    for word in words_beside(lab):
        beside = {} if word in ("type", "seq", "payload") else {word: 0}
        run.append({"type": "step", "payload": [word, {word: 0}], **beside})
    run.look()


@checks("TRM-1", cases=each(value=(0, None)))
def an_event_may_have_any_key(lab: Lab, value: Any) -> None:
    run = lab.started()
    for key in COLUMNS:
        run.append({"type": "step", key: value})
    run.look()


@checks("TRM-1", "APP-1", cases=each(length=(256, 10_000)))
def a_type_and_a_key_may_be_long(lab: Lab, length: int) -> None:
    run = lab.started()
    run.append({"type": "t" * length, "k" * length: 0})
    run.append({"type": "t" * (length - 1) + "u", "payload": {"k" * length: 0}})
    run.look()


@checks(
    "TRM-1s", given={"keys": lambda _: st.lists(st.text(max_size=4), min_size=2, max_size=6, unique=True)}
)
def the_order_of_keys_is_kept(lab: Lab, keys: list[str]) -> None:
    with lab.arranging():
        run = lab.run()
        run.start("checkout", {key: number for number, key in enumerate(keys)})
        run.append({"type": "step", "payload": dict.fromkeys(reversed(keys), 0)})
        record = run.get().value
        loaded = run.load().value
    stored = [list(record.input), list(loaded[0]["payload"])]
    if stored != [keys, keys[::-1]]:
        lab.fail(f"the keys {keys!r} came back as {stored[0]!r}, and reversed as {stored[1]!r}", "TRM-1s")


@checks("TRM-2", cases=each(where=positions, term=lambda _: range(len(RICH))))
def a_rich_term_reads_back(lab: Lab, where: str, term: int) -> None:
    _put(lab, where, RICH[term]).look()


@checks(
    "TRM-2",
    given={"term": lambda _: rich_terms(), "where": lambda caps: st.sampled_from(positions(caps))},
    weight=3,
)
def any_rich_term_reads_back(lab: Lab, term: Any, where: str) -> None:
    _put(lab, where, term).look()


@checks("CAP-1", without="rich_terms", cases=each(where=positions, term=lambda _: range(len(RICH))))
def an_undeclared_rich_term_is_refused_or_kept(lab: Lab, where: str, term: int) -> None:
    _put(lab, where, RICH[term]).look()


OFFENDERS = offenders()


@checks("TRM-3", cases=each(where=positions, which=lambda _: range(len(OFFENDERS)), depth=(0, 2)))
def what_cannot_be_stored_is_refused_with_its_path(lab: Lab, where: str, which: int, depth: int) -> None:
    _, make, _ = OFFENDERS[which]
    term = make() if depth == 0 else {"owner": [1, {"name": make()}], "fine": 1}
    run = _put(lab, where, term)
    run.look()
    if where == "input":
        run.start("checkout", 1)
    elif where == "payload":
        run.append({"type": "next", "seq": 0})
    elif where == "step":
        run.snapshot(0, {0: "fine"})
    else:
        run.append()
    run.look()


@checks("TRM-3", cases=each(where=positions))
def the_first_of_several_offenders_is_named(lab: Lab, where: str) -> None:
    bad = object()
    _put(lab, where, [1, {"a": 2, "b": [3, bad], "c": bad}, bad]).look()
    _put(lab, where, {"x": {"y": {"z": [[], [bad]]}}}).look()


@checks("TRM-3", cases=each(how=("key", "surrogate key", "member", "beside the payload", "type")))
def an_offender_in_an_unusual_place_is_refused(lab: Lab, how: str) -> None:
    run = lab.started()
    if how == "key":
        run.append({"type": "step", "payload": {"a": {frozenset({object()}): 1}}})
    elif how == "surrogate key":
        run.append({"type": "step", "payload": {"a": {"\udc00": 1}}})
    elif how == "member":
        run.append({"type": "step", "payload": {"a": {object()}}})
    elif how == "beside the payload":
        run.append({"type": "step", "fine": 1, "extra": [object()]})
    else:
        run.append({"type": "a\ud800", "payload": 1})
    run.append({"type": "next", "seq": 0})
    run.look()


@checks("TRM-3s", cases=each(term=lambda _: range(len(SUBCLASSES))))
def a_subclass_is_refused_rather_than_flattened(lab: Lab, term: int) -> None:
    value = SUBCLASSES[term]
    run = lab.run()
    outcome = lab.ask("start_run", run_id=run.run_id, workflow="checkout", input={"a": [value]})
    if outcome.kind is Kind.ERROR and outcome.error == "NotDurable":
        return
    if not outcome.ok:
        lab.fail(
            f"an input with a {type(value).__name__} raised {outcome.error}: {outcome.message}", "TRM-3s"
        )
    record = lab.ask("get_run", run_id=run.run_id).value
    came = record.input["a"][0]
    if type(came) is not type(value):
        lab.fail(
            f"{shown(value)} ({type(value).__name__}) became {shown(came)} ({type(came).__name__})", "TRM-3s"
        )


@checks("TRM-4", cases=each(where=positions))
def changing_the_object_afterwards_changes_nothing(lab: Lab, where: str) -> None:
    term: Any = {"items": [1, {"deep": [2]}], "name": "x"}
    run = _put(lab, where, term, mutates="arguments")
    run.look()
    if where == "payload":
        run.append({"type": "after", "seq": 1})
        run.look()


def _unsorted(rich: bool) -> dict[str, Any]:
    """A term with something in it for every conversion that might be made in place."""
    plain = {"z": [3, 1, 2], "a": {"y": None, "b": b"\x00"}, "n": [2**70, 0.5, -0.0, float("nan")]}
    return {**plain, "t": (1, [(2,)]), "s": {3}, "m": {(1, 2): {1: "one"}}} if rich else plain


@checks("TRM-4", cases=each(where=positions, refused=(False, True)))
def storing_leaves_the_callers_object_alone(lab: Lab, where: str, refused: bool) -> None:
    with lab.arranging():
        run = lab.run() if where == "input" else lab.started(events=1)
    term: Any = _unsorted("rich_terms" in lab.capabilities)
    if refused:
        term["bad"] = object()
    handed: Any = {"payload": {"type": "step", "payload": term}, "step": {0: term}}.get(where, term)
    before = canonical(handed, ordered=True)
    acts: dict[str, Callable[[], Any]] = {
        "input": lambda: run.start("checkout", handed),
        "payload": lambda: run.append(handed),
        "result": lambda: run.complete(handed),
        "error": lambda: run.fail(handed),
        "step": lambda: run.snapshot(0, handed),
    }
    acts[where]()
    if canonical(handed, ordered=True) != before:
        lab.fail(f"the journal changed the caller's own object, which is now {shown(handed, 200)}")


RUNS_CODE = {
    ("_pickle", "loads"),
    ("_pickle", "load"),
    ("pickle", "loads"),
    ("pickle", "load"),
    ("pickle", "_loads"),
    ("pickle", "_load"),
    ("marshal", "loads"),
    ("marshal", "load"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("dill._dill", "loads"),
    ("jsonpickle.unpickler", "decode"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("yaml.constructor", "construct_python_object_apply"),
}
"""What turns stored bytes into running code (TRM-5)."""


def _watcher(seen: list[str]) -> Callable[[FrameType, str, Any], None]:
    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = (getattr(argument, "__module__", None) or "", getattr(argument, "__name__", ""))
            owner = type(getattr(argument, "__self__", None))
            if owner.__module__ == "_pickle" and owner.__name__ == "Unpickler" and name[1] == "load":
                name = ("_pickle", "load")
        elif event == "call":
            name = (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        else:
            return
        if name in RUNS_CODE and not _innocent(frame):
            where = frame if event == "c_call" else frame.f_back or frame
            seen.append(
                f"{name[0].lstrip('_')}.{name[1]} in {_from_here(where.f_code.co_filename)}, line {where.f_lineno}"
            )

    return watch


def _from_here(file: str) -> str:
    """A path below the current directory from there, so that a finding reads the same on every machine."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def _innocent(frame: FrameType | None) -> bool:
    """Whether code ran for a reason of its own: an import, or talk between processes of the adapter's."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(
            (
                "importlib",
                "_frozen_importlib",
                "multiprocessing",
                "concurrent.futures",
                "collections",
                "dataclasses",
                # Annotations that are text: evaluated, but they are the adapter's own and not what it stored.
                "typing",
                "inspect",
                "annotationlib",
            )
        ):
            return True
        frame = frame.f_back
    return False


@checks(
    "TRM-5",
    cases=each(rich=lambda caps: (False, True) if "rich_terms" in caps else (False,)),
    when=lambda session: session.subject.reach.code,
)
def loading_runs_no_code_from_the_stored_bytes(lab: Lab, rich: bool) -> None:
    with lab.arranging():
        term: Any = {"plain": [None, True, 1, 2**70, 1.5, "x", b"y", {}]}
        if rich:
            term = {"rich": list(RICH)}
        run = lab.run()
        run.start("checkout", term)
        run.append({"type": "step", "payload": term})
        if "snapshots" in lab.capabilities:
            run.snapshot(0, {0: term})
        run.append()
        # Twice before it is watched, so that imports and compiled statements are over.
        for _ in range(2):
            lab.look(run.key)
    seen: list[str] = []
    handle = lab.session.handle("A")
    handle.inside(lambda: sys.setprofile(_watcher(seen)))
    try:
        lab.look(run.key)
    finally:
        handle.inside(lambda: sys.setprofile(None))
    if seen:
        lab.fail(f"loading called {seen[0]}, which can run code from the stored bytes")
