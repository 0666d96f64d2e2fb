"""A race, drawn: a lane for each worker, time downwards, each call a bar with the steps and waits within it.

It is a table whose rows are moments, so that it reads in the order of time without the drawing, wraps on a narrow
screen, and needs no script: what a step is in full shows on hover and on focus. At each moment one worker does
something; `rows` finds out what the others' bars look like meanwhile, and the rest writes that down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from continuum_conformance.history.interleaving import Call, Interleaving, Mark, Move, Pause
from continuum_conformance.report.markup import code, prose
from continuum_conformance.report.text import plural

__all__ = ["Row", "lanes", "rows"]

Kind = Literal["begins", "moves", "folded", "pauses", "freed", "goes on", "ends", "never", "change", "after"]
State = Literal["idle", "held", "waits", "inside"]

_MANY = 60
"""Moves of a race at statements from which on those that nobody interrupts are folded; at other levels they always are."""
_MOST_ROWS = 300
_MOST_LISTED = 40
_LONGEST = 3_000
_NEVER = 1 << 62

_MARKS: Mapping[tuple[Mark, bool], tuple[str, str]] = {
    ("deciding", True): ("contradicts", "No order of the operations explains what this read returned."),
    ("deciding", False): (
        "deciding",
        "From its return on no order of the operations explains what was seen.",
    ),
    ("needed", True): ("contradicts", "Without what this read returned, an order would explain the rest."),
    ("needed", False): ("needed", "Without this call, an order would explain the rest."),
    ("struck", True): ("struck", "The fault hit this call."),
    ("struck", False): ("struck", "The fault hit this call."),
    ("stuck", True): ("stuck", "It could not come back."),
    ("stuck", False): ("stuck", "It could not come back."),
}
"""What is said of a marked call, by whether it reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """A moment."""

    kind: Kind
    worker: str
    states: Mapping[str, State] = field(default_factory=dict)
    """What each worker's bar looks like at this moment."""
    call: Call | None = None
    moves: tuple[Move, ...] = ()
    pause: Pause | None = None


def lanes(drawn: Interleaving, name: str) -> str:
    """The drawing.

    Args:
        drawn: what it looked like.
        name: what the ids of its parts begin with.
    """
    told = list(rows(drawn))
    shown, left = told[:_MOST_ROWS], max(0, len(told) - _MOST_ROWS)
    acting = {row.worker for row in shown}
    workers = [worker for worker in drawn.workers if worker in acting]
    numbers = {worker: f"lane{min(number, 7)}" for number, worker in enumerate(workers)}
    heads = "".join(
        f'<th scope="col" class="{numbers[worker]}">{prose(_named(worker))}</th>' for worker in workers
    )
    body = "".join(_row(row, numbers, f"{name}-{place}") for place, row in enumerate(shown))
    more = f'<p class="more">{plural(left, "more step")} in the JSON report.</p>' if left else ""
    return (
        f'<figure class="race" role="group" aria-label="The race, {plural(len(workers), "worker")}, time downwards">'
        f'<p class="start">{prose(drawn.start)}</p>'
        f'<div class="scroll"><table class="w{min(len(workers), 8)}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}{_legend(shown)}</figure>"
    )


def _named(worker: str) -> str:
    return "the adapter's own tasks" if worker.startswith("~") else f"worker {worker}"


# -- the moments --


def rows(drawn: Interleaving) -> Iterator[Row]:
    """The moments of an interleaving in order, each with what all bars look like."""
    states: dict[str, State] = dict.fromkeys(drawn.workers, "idle")
    before = None
    for row in _folded(drawn, [row for _, _, row in sorted(_moments(drawn), key=lambda moment: moment[:2])]):
        if row.kind == "freed":
            if states[row.worker] != "idle":
                states[row.worker] = "held"
            continue
        if row.kind == "begins":
            states[row.worker] = "held"
        elif row.kind == "pauses" and row.pause is not None:
            states[row.worker] = "waits" if row.pause.waits else "inside"
        elif row.kind in ("moves", "folded", "goes on"):
            states[row.worker] = "held"
        if row.call is not None and row.call.after and before is not None and not before.after:
            yield Row("after", row.worker, dict.fromkeys(states, "idle"))
        before = row.call or before
        yield Row(row.kind, row.worker, dict(states), row.call, row.moves, row.pause)
        if row.kind == "ends" and row.call is not None:
            states[row.worker] = "idle"
            if row.call.change:
                yield Row("change", row.worker, dict(states), row.call)


def _moments(drawn: Interleaving) -> Iterator[tuple[int, int, Row]]:
    last = max((call.began for call in drawn.calls if call.after and call.mark), default=0)
    for call in drawn.calls:
        if call.after and call.began > last:
            continue
        yield call.began, 0, Row("begins", call.worker, call=call)
        if call.ended is not None:
            yield call.ended, 3, Row("ends", call.worker, call=call)
        else:
            yield _NEVER, call.began, Row("never", call.worker, call=call)
    for move in drawn.moves:
        yield move.at, 1, Row("moves", move.worker, moves=(move,))
        for pause in move.pauses:
            yield pause.began, 2, Row("pauses", move.worker, moves=(move,), pause=pause)
            if pause.ended is not None:
                yield pause.ended, 4, Row("freed", move.worker, moves=(move,), pause=pause)
        if move.pauses and move.until is not None and move.until != move.at:
            yield move.until, 1, Row("goes on", move.worker, moves=(move,))


def _folded(drawn: Interleaving, moments: Sequence[Row]) -> Iterator[Row]:
    """The moments, with what a worker does by itself, uninterrupted, in one of them."""
    fine = drawn.level != "statements" and drawn.level != "messages"
    if not fine and len(drawn.moves) <= _MANY:
        yield from moments
        return
    groups = [list(group) for _, group in groupby(moments, lambda row: (row.kind == "moves", row.worker))]
    for place, group in enumerate(groups):
        if group[0].kind != "moves" or any(row.moves[0].pauses for row in group):
            yield from group
            continue
        # What a worker does last before another one moves, and first after that, is what a race is about.
        first = 1 if place and groups[place - 1][0].worker != group[0].worker else 0
        last = 1 if place + 1 < len(groups) and groups[place + 1][0].worker != group[0].worker else 0
        middle = group[first : len(group) - last]
        yield from group[:first]
        if len(middle) > 1:
            yield Row("folded", group[0].worker, moves=tuple(row.moves[0] for row in middle))
        else:
            yield from middle
        yield from group[len(group) - last :] if last else ()


# -- as HTML --


def _row(row: Row, numbers: Mapping[str, str], name: str) -> str:
    if row.kind == "after":
        return f'<tr class="after"><td colspan="{len(numbers)}">afterwards, one after another</td></tr>'
    mark = row.call.mark if row.call is not None and row.kind in ("ends", "never") else ""
    cells = "".join(
        f'<td class="{numbers[worker]} {state if row.kind == "pauses" else row.kind.replace(" ", "-")}">{_content(row, name)}</td>'
        if worker == row.worker
        else f'<td class="{numbers[worker]} {state}"></td>'
        for worker, state in row.states.items()
        if worker in numbers
    )
    kind = f"change {numbers[row.worker]}" if row.kind == "change" else mark
    return f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>"


def _content(row: Row, name: str) -> str:
    if row.kind == "change" and row.call is not None:
        return prose(row.call.change)
    if row.call is not None:
        return _call(row.call, row.kind)
    if row.kind == "folded":
        return _step(f"{len(row.moves)} steps", "", _listed(row.moves), name, "some")
    move = row.moves[0]
    if row.kind == "pauses" and row.pause is not None:
        return f'<p class="why">{prose(row.pause.why)}</p>'
    if row.kind == "goes on":
        answer = f' <span class="answer">{prose(move.answer)}</span>' if move.answer else ""
        return f'<p class="on line{" failed" if move.failed else ""}">goes on{answer}</p>'
    answer = "" if move.pauses or move.minor else move.answer
    kind = "failed" if move.failed and answer else "minor" if move.minor else ""
    return _step(move.text, answer, _told(move), name, kind)


def _call(call: Call, kind: Kind) -> str:
    if kind == "begins":
        return f'<p class="called"><code>{code(call.text)}</code></p>'
    word, meaning = _MARKS.get((call.mark, call.reads), ("", ""))
    tag = (
        f' <span class="tag" title="{meaning}">{word}<span class="unseen">: {meaning}</span></span>'
        if word
        else ""
    )
    if kind == "never":
        return f'<p class="why">never came back{tag}</p>'
    name = call.text.partition("(")[0]
    return (
        f'<p class="came"><span class="arrow">→</span> <code>{code(call.outcome)}</code>'
        f'<span class="unseen"> from {prose(name)}</span>{tag}</p>'
    )


def _step(text: str, answer: str, tip: str, name: str, kind: str) -> str:
    said = f' <span class="answer">{prose(answer)}</span>' if answer and answer != text else ""
    described = f' aria-describedby="{name}"' if tip else ""
    shown = f'<span class="tip" role="tooltip" id="{name}">{tip}</span>' if tip else ""
    return (
        f'<div class="move {kind}"><button type="button"{described}><span class="dot"></span>'
        f'<span class="line"><code>{prose(text)}</code>{said}</span></button>{shown}</div>'
    )


def _told(move: Move) -> str:
    """A step in full."""
    parts = [f"<code>{prose(move.detail[:_LONGEST] or move.text)}</code>"]
    if move.values:
        listed = " ".join(
            f"<span><b>${number}</b> <code>{prose(value)}</code></span>"
            for number, value in enumerate(move.values, 1)
        )
        parts.append(f'<span class="values">{listed}</span>')
    if move.answer:
        failed = " failed" if move.failed else ""
        parts.append(f'<span class="answer{failed}">→ {prose(move.answer)}</span>')
    parts.extend(f'<span class="why">{prose(pause.why)}</span>' for pause in move.pauses)
    return "".join(parts)


def _listed(moves: Sequence[Move]) -> str:
    listed = "".join(f"<code>{prose(move.text)}</code>" for move in moves[:_MOST_LISTED])
    left = len(moves) - _MOST_LISTED
    return listed + (f'<span class="why">and {plural(left, "more step")}</span>' if left > 0 else "")


_SIGNS: Mapping[str, str] = {
    "moves": "a step; in full on hover and on focus",
    "held": "under way, while another worker moves",
    "waits": "waits for another worker",
    "inside": "held within a statement",
}


def _legend(shown: Sequence[Row]) -> str:
    """What the signs mean that occur."""
    states = {
        state
        for row in shown
        for worker, state in row.states.items()
        if worker != row.worker or row.kind == "pauses"
    }
    kinds = {"moves"} if any(row.kind in ("moves", "folded") for row in shown) else set()
    items = [
        f'<li><span class="sample {sign}"></span>{meaning}</li>'
        for sign, meaning in _SIGNS.items()
        if sign in states | kinds
    ]
    marks = {(row.call.mark, row.call.reads) for row in shown if row.call is not None and row.call.mark}
    items += [
        f'<li class="{mark}"><span class="tag">{_MARKS[mark, reads][0]}</span>{_MARKS[mark, reads][1]}</li>'
        for mark, reads in _MARKS
        if (mark, reads) in marks
    ]
    return f'<ul class="samples" aria-hidden="true">{"".join(items)}</ul>' if items else ""
