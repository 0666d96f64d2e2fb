"""One finding as plain text: what a failed test of pytest says, and what a replay shows."""

from __future__ import annotations

from continuum_conformance.contract.clauses import CLAUSES
from continuum_conformance.report.data import Finding
from continuum_conformance.report.text import clip, one_line, printable, wrap

__all__ = ["finding_text"]

_GUTTER = 8
_LONGEST_LINE = 240
_LONGEST_TRACE = 12


def finding_text(finding: Finding, *, width: int = 80, again: str = "") -> str:
    """The finding: what is wrong, the rule, the script that shows it, and what to look at.

    Args:
        finding: what was found; its first clause is the one that it is about.
        width: columns of the prose.
        again: the command that shows it once more.
    """
    lead, *also = finding.clauses
    clause = CLAUSES.get(lead)
    lines = wrap(f"{lead}: {clip(one_line(finding.message), 1_200)}", width)
    lines.append("")
    if clause is not None:
        lines += _row("rule", f"{clause.level} {lead}: {clause.rule}", width)
    if also:
        lines += _row("also", ", ".join(also), width)
    if finding.counterexample.strip():
        lines.append("")
        lines += [
            f"    {clip(line, _LONGEST_LINE)}"
            for line in printable(finding.counterexample).strip("\n").split("\n")
        ]
        lines.append("")
    for title, text in (("the adapter's own error:", finding.traceback), ("where it hangs:", finding.stack)):
        if text:
            kept = printable(text).strip("\n").split("\n")[-_LONGEST_TRACE:]
            lines += [title, "", *(f"    {line}" for line in kept), ""]
    if clause is not None:
        lines += _row("advice", clause.advice, width)
    if again:
        lines += [f"{'again':<{_GUTTER}}{again}"]
    if finding.replay_note == "seen once":
        lines += _row(
            "", "It was seen once, and did not come back when the same calls were made again.", width
        )
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _row(label: str, text: str, width: int) -> list[str]:
    first, *rest = wrap(one_line(text), width - _GUTTER)
    return [f"{label:<{_GUTTER}}{first}", *(" " * _GUTTER + part for part in rest)]
