"""The command's arguments. The templates under ``ci/`` are fed to this parser by a test."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from continuum_conformance import __version__
from continuum_conformance.contract.capabilities import CAPABILITIES
from continuum_conformance.contract.clauses import CONTRACT_VERSION, select
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.harness.bridge.harness import PREFIX
from continuum_conformance.harness.subject import CALL_LIMIT

__all__ = ["POSTGRES_CHOICES", "PROFILES", "command_parser", "count_of", "parsed", "parser", "seconds_of"]

PROFILES = ("quick", "standard", "thorough")
BENCH_PARTS = ("pace", "growth", "bytes", "limits")
POSTGRES_CHOICES = ("auto", "embedded", "local", "container")

_TARGET = "an installed adapter (`continuum-conformance adapters` lists them), or module:Name"

_CODES = """\
exit codes:
  0  conforming; with --only or --expected: what was selected passed, or failed as expected
  1  not conforming, or a line of the expected-failure file is stale
  2  wrong usage, or an adapter that cannot be loaded or opened
  3  the run could not be completed: interrupted, no PostgreSQL, or clauses left unjudged
"""

_REPLAY_CODES = """\
exit codes:
  0  the violation does not show any more
  1  it shows
  2  wrong usage, a file that is no replay file, or an adapter that cannot be loaded or opened
  3  the replay could not be completed
"""


_RACE_CODES = """\
exit codes:
  0  no race was found within the budget
  1  one was found
  2  wrong usage, or an adapter that cannot be loaded or opened
  3  the hunt could not be completed
"""


_SIMULATE_CODES = """\
exit codes:
  0  nothing was wrong in any of the worlds
  1  something was: it is made smaller, told, and kept in a file for `replay`
  2  wrong usage, or an adapter or engine that cannot be loaded or opened
  3  the campaign could not be completed
"""


_BENCH_CODES = """\
exit codes:
  0  everything was measured, or left out with its reason
  2  wrong usage, or an adapter that cannot be loaded or opened
  3  the measurement could not be completed: interrupted, no PostgreSQL, or an operation failed
"""


class _Parser(argparse.ArgumentParser):
    """Answers wrong usage with what was wrong, not with a screen of options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n`{self.prog} --help` tells what it takes.\n")


def parser() -> argparse.ArgumentParser:
    """The parser. ``command`` of what it returns is the name of the chosen command."""
    whole = _Parser(
        prog="continuum-conformance",
        description="Checks journal adapters of durable-execution engines against the contract, clause by clause.",
    )
    whole.add_argument(
        "--version",
        action="version",
        version=f"continuum-conformance {__version__} (contract {CONTRACT_VERSION})",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        described = f"{summary[0].upper()}{summary[1:]}."
        return commands.add_parser(name, help=summary, description=described, epilog=epilog)

    _check(command("check", "check an adapter and print the verdict", _CODES))
    _replay(command("replay", "carry out a saved counterexample again", _REPLAY_CODES))
    _race(command("race", "hunt for a race, for as long as you like", _RACE_CODES))
    _simulate(
        command("simulate", "simulate clusters of workers over an adapter, under faults", _SIMULATE_CODES)
    )
    _bench(command("bench", "measure how fast an adapter is", _BENCH_CODES))
    _serve(command("serve", "offer an adapter in Python as a program on the bridge (docs/bridge.md)"))
    _clauses(command("clauses", "print the clauses of the contract"))
    _adapters(command("adapters", "list the installed adapters"))
    return whole


def command_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser of its own, for a command whose arguments stand beside it."""
    return _Parser(prog=prog, description=description)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options. ``target`` is an ``exec:`` target where the command was given one with ``--exec``."""
    whole = parser()
    options = whole.parse_args(arguments)
    command = getattr(options, "exec", None)
    if command is not None:
        if options.target:
            whole.error(f"--exec names the adapter, and so does {options.target!r}; give one of them")
        options.target = f"{PREFIX}{command}"
    elif options.command in _NEED_A_TARGET and not options.target:
        whole.error(f"{options.command} needs a TARGET, or --exec COMMAND")
    return options


_NEED_A_TARGET = ("race", "simulate", "bench")


def _target(parser: argparse.ArgumentParser, otherwise: str = "") -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help=f"{_TARGET}{f'; by default {otherwise}' if otherwise else ''}",
    )
    parser.add_argument(
        "--exec",
        metavar="COMMAND",
        help="in place of TARGET: a program in any language that speaks the bridge's protocol, as in 'node bridge.mjs'",
    )


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help=_TARGET)


def _check(parser: argparse.ArgumentParser) -> None:
    _target(
        parser,
        "CONTINUUM_JOURNAL, else `journal` or `exec` in [tool.continuum-conformance] of pyproject.toml",
    )
    plan = parser.add_argument_group("what is tried")
    plan.add_argument(
        "--profile", choices=PROFILES, help="how much; a plan, not a time limit (default: standard)"
    )
    plan.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the random data (default: 0; the same seed tries the same)",
    )
    plan.add_argument(
        "--only", type=_selection, metavar="FEN,APP-2", help="judge these chapters and clauses alone"
    )
    plan.add_argument(
        "--expected",
        metavar="FILE",
        help="known failures: a clause and a reason per line; a line that passes fails the run",
    )
    plan.add_argument(
        "--without",
        type=_capabilities,
        default=(),
        metavar="CAPABILITY[,..]",
        help="withdraw declared capabilities for this run, as in crash_safe",
    )
    plan.add_argument("--first", action="store_true", help="stop at the first MUST that fails")
    plan.add_argument(
        "--failover",
        action="store_true",
        help="lose primaries to their standbys too, on PostgreSQL servers of the kit's own",
    )
    reports = parser.add_argument_group("what is written")
    reports.add_argument("--json", metavar="FILE", help="the report as JSON (- for standard output)")
    reports.add_argument("--junit", metavar="FILE", help="the report as JUnit XML")
    reports.add_argument(
        "--report",
        metavar="DIR",
        help="a page (index.html), report.json, and for each failed clause a replay file; for races in PostgreSQL a spec too",
    )
    _store(parser)
    _screen(parser)


def _replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a replay file, as in out/FEN-3.json")
    _target(parser, "the one that the file names")
    parser.add_argument(
        "--isolation-spec",
        metavar="SPEC",
        help="of a race in PostgreSQL, write a spec for PostgreSQL's isolation tester (- for standard output)",
    )
    _store(parser)
    _screen(parser)


def _race(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    group = parser.add_argument_group("what is tried")
    group.add_argument(
        "--ops",
        type=_operations,
        default=frozenset(),
        metavar="append,acquire",
        help="operations that may take part (default: all); load and get_run always may",
    )
    group.add_argument(
        "--workers", type=int, choices=(2, 3, 4), default=3, help="how many at once, at most (default: 3)"
    )
    group.add_argument(
        "--strategy",
        choices=("exhaustive", "pct", "random"),
        default="exhaustive",
        help="walk the known scenarios, then random programs; or draw programs and schedules at once (default: exhaustive)",
    )
    group.add_argument(
        "--budget", type=_seconds, default=30.0, metavar="SECONDS", help="how long (default: 30)"
    )
    group.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the random programs (default: 0)"
    )
    group.add_argument(
        "--corpus",
        default=".continuum",
        metavar="DIR",
        help="where finds are kept, and what was explored, so that a later hunt goes on (default: .continuum)",
    )
    _store(parser)
    _screen(parser)


def _simulate(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    world = parser.add_argument_group("the worlds")
    world.add_argument(
        "--workers", type=_count(1, 100), default=3, metavar="N", help="how many workers (default: 3)"
    )
    world.add_argument(
        "--runs",
        type=_count(1, 10_000),
        default=5,
        metavar="M",
        help="how many runs are started (default: 5)",
    )
    world.add_argument(
        "--hours",
        type=_hours,
        default=1.0,
        metavar="H",
        help="of virtual time in which runs start and things go wrong (default: 1)",
    )
    seeds = world.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_seed, metavar="S", help="one world alone")
    seeds.add_argument(
        "--seeds",
        type=_seeds,
        metavar="A..B",
        help="a world for each of these (default: 0..199, the standard campaign)",
    )
    world.add_argument(
        "--engine",
        default="",
        metavar="MODULE:NAME",
        help="a worker function of yours that carries out the kit's workflows (default: the kit's own engine)",
    )
    world.add_argument(
        "--first", action="store_true", help="stop at the first world in which something is wrong"
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--jobs", type=_count(1, 256), default=1, metavar="J", help="how many processes (default: 1)"
    )
    where.add_argument(
        "--dask", metavar="ADDRESS", help="on the cluster of this Dask scheduler, as in tcp://host:8786"
    )
    written = parser.add_argument_group("what is written")
    written.add_argument(
        "--report",
        metavar="DIR",
        help="campaign.json, and of what is wrong a replay file and a page with a picture (default: the replay file alone, under .continuum)",
    )
    written.add_argument(
        "--trace", metavar="FILE", help="with --seed: all that happened, a line for each moment"
    )
    _store(parser)
    _screen(parser)


def _bench(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    parser.add_argument(
        "--against",
        metavar="TARGET2",
        help="measure another adapter in the same run, turn by turn, and compare",
    )
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--parts",
        type=_parts,
        default=BENCH_PARTS,
        metavar="PART[,..]",
        help=f"of {', '.join(BENCH_PARTS)} (default: all)",
    )
    group.add_argument(
        "--ops",
        type=_operations,
        default=frozenset(),
        metavar="append,load",
        help="operations whose pace is measured (default: all)",
    )
    group.add_argument(
        "--clients", type=_count(2, 64), default=8, metavar="N", help="how many at once (default: 8)"
    )
    group.add_argument(
        "--handles",
        type=_count(1, 64),
        default=1,
        metavar="N",
        help="how many handles they share, all in one process (default: 1)",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=_positive, default=0.5, metavar="S", help="of calls for each figure (default: 0.5)"
    )
    length.add_argument(
        "--count", type=_count(1, 1_000_000), metavar="N", help="calls of each client for each figure instead"
    )
    group.add_argument(
        "--budget",
        type=_positive,
        default=120.0,
        metavar="SECONDS",
        help="for histories and stores that grow; larger ones are left out when it ends (default: 120)",
    )
    group.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of what the events hold and of the order of turns (default: 0)",
    )
    written = parser.add_argument_group("what is written")
    written.add_argument("--json", metavar="FILE", help="all figures as JSON (- for standard output)")
    written.add_argument(
        "--report", metavar="DIR", help="a page (bench.html), its picture (bench.svg), and bench.json"
    )
    _store(parser)
    _screen(parser)


def _clauses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which",
        metavar="CLAUSE",
        nargs="?",
        help="a clause, as in FEN-3, to be told in full, or a chapter, as in FEN; several with commas",
    )
    parser.add_argument("--markdown", action="store_true", help="as the page docs/contract.md")
    _screen(parser)


def _adapters(parser: argparse.ArgumentParser) -> None:
    _screen(parser)


def _store(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the adapter and its store")
    group.add_argument(
        "--postgres",
        choices=POSTGRES_CHOICES,
        default="auto",
        help="for adapters that need one: which server (default: auto, that is a given DSN, else embedded, else local programs)",
    )
    group.add_argument(
        "--dsn",
        metavar="DSN",
        help="a server of yours, as postgresql://user@host/database (or CONTINUUM_DSN); the kit creates a database of its own there",
    )
    group.add_argument(
        "--use-database",
        action="store_true",
        help="use the DSN's database as it is; runs of the kit stay in it",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=CALL_LIMIT,
        metavar="SECONDS",
        help=f"how long a call may take before it counts as hung (default: {CALL_LIMIT:g}; 0: for ever, as for a debugger)",
    )


def _screen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-colour",
        "--no-color",
        dest="colour",
        action="store_false",
        default=None,
        help="plain text (as with NO_COLOR)",
    )


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        found = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        found = range(0)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds; write them as in 0..999")
    return found


def _count(least: int, most: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return number

    return count


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0.01 <= hours <= 8_760:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours from 0.01 to 8760")
    return hours


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400")
    return seconds or 86_400.0


def _positive(text: str) -> float:
    seconds = _seconds(text)
    if not 0.001 <= seconds <= 3_600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 3600")
    return seconds


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in BENCH_PARTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{_listed(unknown) or 'nothing'} is no part; there are {', '.join(BENCH_PARTS)}"
        )
    return tuple(part for part in BENCH_PARTS if part in names)


def _operations(text: str) -> frozenset[str]:
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(names - set(OPERATIONS))
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{_listed(unknown) or 'nothing'} is no operation; there are {', '.join(OPERATIONS)}"
        )
    return names


def _selection(text: str) -> tuple[str, ...]:
    try:
        return tuple(select(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _capabilities(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in CAPABILITIES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{_listed(unknown) or 'nothing'} is no capability; there are {', '.join(CAPABILITIES)}"
        )
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


count_of = _count
"""The type of an argument that is a whole number between two, both included."""

seconds_of = _seconds
"""The type of an argument in seconds; 0 is for ever."""
