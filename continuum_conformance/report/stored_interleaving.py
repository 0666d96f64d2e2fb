"""An interleaving as JSON data, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from continuum_conformance.history.interleaving import Call, Interleaving, Mark, Move, Pause
from continuum_conformance.report.stored_object import StoredObject

__all__ = ["interleaving_from_json", "interleaving_to_json"]


def interleaving_to_json(drawn: Interleaving | None) -> dict[str, Any] | None:
    """The interleaving as plain data. A run at instructions has hundreds of moves, most of them a text and a moment."""
    if drawn is None:
        return None
    return {
        "level": drawn.level,
        "workers": list(drawn.workers),
        "start": drawn.start,
        "calls": [asdict(call) for call in drawn.calls],
        "moves": [_without_the_usual(asdict(move)) for move in drawn.moves],
    }


def _without_the_usual(data: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in data.items()
        if value is not None and value is not False and value not in ("", ())
    }


def interleaving_from_json(data: object) -> Interleaving | None:
    """The interleaving that `interleaving_to_json` made this data of.

    Raises:
        ValueError: it is something else.
    """
    if data is None:
        return None
    drawn = StoredObject(data, "an interleaving")
    return Interleaving(
        drawn.get("level", str),
        tuple(drawn.texts("workers")),
        drawn.get("start", str),
        tuple(_call(item) for item in drawn.get("calls", list)),
        tuple(_move(item) for item in drawn.get("moves", list)),
    )


def _call(data: object) -> Call:
    call = StoredObject(data, "a call")
    return Call(
        call.get("worker", str),
        call.get("text", str),
        call.get("outcome", str),
        call.get("began", int),
        call.moment("ended"),
        call.one_of("mark", Mark),
        call.flag("reads"),
        call.get("change", str),
        call.flag("after"),
    )


def _move(data: object) -> Move:
    move = StoredObject(data, "a move")
    return Move(
        move.get("worker", str),
        move.optional("text") or "",
        move.get("at", int),
        move.moment("until"),
        move.optional("detail") or "",
        tuple(move.texts("values")) if move.holds("values", list) else (),
        move.optional("answer") or "",
        move.flag("failed"),
        move.flag("minor"),
        tuple(_pause(item) for item in move.get("pauses", list)) if move.holds("pauses", list) else (),
    )


def _pause(data: object) -> Pause:
    pause = StoredObject(data, "a pause")
    return Pause(pause.get("began", int), pause.moment("ended"), pause.get("why", str), pause.flag("waits"))
