"""The commands that only tell: `clauses` and `adapters`."""

from __future__ import annotations

import argparse
import importlib.metadata
from dataclasses import dataclass

from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop
from continuum_conformance.contract.clauses import CHAPTERS, CLAUSES, Clause, in_force, select
from continuum_conformance.contract.measured import MEASURED, MEASURED_CHAPTERS
from continuum_conformance.contract.targets import TargetError, entry_points
from continuum_conformance.contract.terms import shown
from continuum_conformance.harness import Subject
from continuum_conformance.report.screen import Screen

__all__ = ["adapters", "clauses"]

_EVERY = {**CLAUSES, **MEASURED}
_TITLES = {**CHAPTERS, **MEASURED_CHAPTERS}


def clauses(options: argparse.Namespace, console: Console) -> int:
    """Print clauses: all in a line or two each, one in full, or the whole as a page of Markdown."""
    try:
        chosen = select(options.which, _EVERY.values()) if options.which else list(_EVERY)
    except ValueError as error:
        raise Stop(2, str(error)) from None
    screen = console.screen(options.colour)
    if options.markdown:
        from continuum_conformance.cli.markdown import contract_page

        screen.write(contract_page([_EVERY[entry] for entry in chosen]))
    elif len(chosen) == 1:
        _tell_in_full(screen, _EVERY[chosen[0]])
    else:
        _list(screen, [_EVERY[entry] for entry in chosen])
    return 0


def _tell_in_full(screen: Screen, entry: Clause) -> None:
    screen.line(f"{screen.paint(entry.id, 'bold')}  {entry.level}  {_TITLES[entry.chapter]}")
    screen.line()
    capability = (
        "every adapter" if entry.capability == "core" else f"adapters that declare {entry.capability}"
    )
    since = entry.since if in_force(entry) else f"{entry.since} (a later version: not judged yet)"
    rows = {
        "rule": entry.rule,
        "reason": entry.reason,
        "advice": entry.advice,
        "note": entry.note,
        "asked of": capability,
        "since": f"contract {since}",
    }
    for label, text in rows.items():
        screen.prose(text, label=label, indent=2, gutter=10)


def _list(screen: Screen, entries: list[Clause]) -> None:
    for key, title in _TITLES.items():
        members = [entry for entry in entries if entry.chapter == key]
        if not members:
            continue
        screen.line(screen.paint(f"{key}  {title}", "bold"))
        for entry in members:
            conditions = [entry.level] if entry.level != "MUST" else []
            conditions += [entry.capability] if entry.capability != "core" else []
            conditions += [] if in_force(entry) else [f"from contract {entry.since}"]
            told = f" ({', '.join(conditions)})" if conditions else ""
            screen.prose(entry.rule + told, label=entry.id, indent=2, gutter=8)
        screen.line()
    screen.line(
        f"{len(entries)} clauses. One in full, with reason and advice: continuum-conformance clauses FEN-3"
    )


@dataclass(frozen=True)
class _Adapter:
    """An installed adapter, as far as it can be loaded."""

    name: str
    value: str
    source: str
    capabilities: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    trouble: str = ""


def adapters(options: argparse.Namespace, console: Console) -> int:
    """Print the installed adapters with what they declare and need, and why one cannot be loaded."""
    with console.apart():
        found = [_look(point) for _, point in sorted(entry_points().items())]
    screen = console.screen(options.colour)
    for adapter in found:
        screen.line(f"{screen.paint(adapter.name, 'bold')}  {adapter.value}  ({adapter.source})")
        if adapter.trouble:
            screen.prose(f"cannot be loaded: {adapter.trouble}", "red", indent=2)
            continue
        declares = ", ".join(adapter.capabilities) or "no capability beyond the core"
        screen.prose(declares, label="declares", indent=2, gutter=10)
        screen.prose(", ".join(adapter.needs), label="needs", indent=2, gutter=10)
    if not found:
        screen.line("No adapter is installed.")
    screen.line()
    screen.line(
        "Any harness in a module is a target too: continuum-conformance check my_package.testing:MyHarness"
    )
    return 0


def _look(point: importlib.metadata.EntryPoint) -> _Adapter:
    source = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "of no distribution"
    try:
        subject = Subject(point.name)
    except TargetError as error:
        return _Adapter(point.name, point.value, source, trouble=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code: one bad package must not hide the others
        return _Adapter(
            point.name, point.value, source, trouble=f"{type(error).__name__}: {shown(str(error), 200)}"
        )
    return _Adapter(
        point.name, point.value, source, tuple(sorted(subject.declared)), tuple(sorted(subject.needs))
    )
