"""The contract as a page of Markdown: what ``docs/contract.md`` holds."""

from __future__ import annotations

from collections.abc import Iterable

from continuum_conformance.contract.capabilities import CAPABILITIES, CORE, EXTENSIONS
from continuum_conformance.contract.clauses import CHAPTERS, CONTRACT_VERSION, Clause, in_force
from continuum_conformance.contract.measured import MEASURED_CHAPTERS

__all__ = ["contract_page"]

_HEAD = """\
<!-- Generated from continuum_conformance/contract/clauses.py; do not edit. To write it anew:
     continuum-conformance clauses --markdown > docs/contract.md -->

# The journal contract, version {version}

What a journal adapter must do, clause by clause. A **MUST** that is broken makes an adapter nonconforming; a
**SHOULD** that is not met is advice. A clause counts for adapters that declare its capability; those without one
count for all. What an adapter does not declare it refuses clearly ([CAP-1](#cap-1)). An `s` behind an id marks a
SHOULD that stands within the MUST of the same number. Clauses of a later version are printed here, so that authors
can prepare, and are not judged yet.

The interface, the records and the errors are in the package `continuum_conformance.contract`.
"""


def contract_page(entries: Iterable[Clause]) -> str:
    """The clauses as a page, by chapter, with the capabilities before them."""
    entries = list(entries)
    parts = [_HEAD.format(version=CONTRACT_VERSION), _capabilities()]
    for key, title in {**CHAPTERS, **MEASURED_CHAPTERS}.items():
        members = [entry for entry in entries if entry.chapter == key]
        if members:
            parts.append(f"## {key} – {title}\n")
            parts.extend(_clause(entry) for entry in members)
    return "\n".join(parts)


def _capabilities() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in CAPABILITIES.items()]
    rows += [f"| `{name}` | {meaning} (extension: no clauses yet) |" for name, meaning in EXTENSIONS.items()]
    return "\n".join(["## Capabilities", "", "| Capability | What it promises |", "|---|---|", *rows, ""])


def _clause(entry: Clause) -> str:
    conditions = [f"**{entry.level}**"]
    if entry.capability != CORE:
        conditions.append(f"`{entry.capability}`")
    conditions.append(f"since {entry.since}" + ("" if in_force(entry) else ", not judged yet"))
    lines = [f"### {entry.id}", "", " · ".join(conditions), "", _escaped(entry.rule), ""]
    lines += [f"- *Why:* {_escaped(entry.reason)}", f"- *When it fails:* {_escaped(entry.advice)}"]
    if entry.note:
        lines.append(f"- *Decided here:* {_escaped(entry.note)}")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    """The text with what Markdown would take for markup kept as it is; code between backticks stays code."""
    pieces = text.split("`")
    for index in range(0, len(pieces), 2):
        for char in "*<":
            pieces[index] = pieces[index].replace(char, f"\\{char}")
    return "`".join(pieces)
