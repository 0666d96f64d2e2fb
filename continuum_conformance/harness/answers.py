"""What a journal's method gave or raised, as an `Outcome`, whatever the author's objects do when they are looked at."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from continuum_conformance.model import Garbage, Kind, Outcome, normalise

__all__ = ["outcome_of_value", "said", "trace_of"]

_HERE = Path(__file__).parent


def outcome_of_value(name: str, value: Any) -> Outcome:
    """The outcome of a call that answered, with garbage told from an answer."""
    try:
        answer, remark = normalise(name, value)
    except Garbage as garbage:
        return Outcome(Kind.GARBAGE, message=str(garbage))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a foreign record's properties may raise anything
        return Outcome(
            Kind.GARBAGE, message=f"the answer cannot be read: {said(error)}", detail=trace_of(error)
        )
    return Outcome.of(answer, remark)


def said(error: BaseException) -> str:
    """An exception's name and text, whatever its __str__ does."""
    raw = Outcome.raised(error)
    return f"{type(error).__name__}: {raw.message}" if raw.message else type(error).__name__


def trace_of(error: BaseException) -> str:
    """An exception's traceback, without the kit's own frames at its head."""
    try:
        frames = traceback.extract_tb(error.__traceback__)
        kept = [frame for frame in frames if Path(frame.filename).parent != _HERE]
        lines = traceback.format_list(kept[-12:]) + traceback.format_exception_only(error)
        if not kept and error.__cause__ is not None:
            lines.insert(0, trace_of(error.__cause__))  # a coroutine that raised StopIteration, say
        return "".join(lines)
    except Exception as wrong:  # noqa: BLE001 - a foreign exception may not even print
        return f"{type(error).__name__} (its traceback cannot be shown: {type(wrong).__name__})"
