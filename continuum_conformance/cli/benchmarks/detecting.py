"""``continuum-conformance bench detection``: how long until the kit finds each wrong adapter of a bank, and until others do."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from continuum_conformance.cli.arguments import command_parser, count_of, seconds_of
from continuum_conformance.cli.benchmarks.bank import Wrong, adapters_of
from continuum_conformance.cli.benchmarks.detection_page import page, picture
from continuum_conformance.cli.benchmarks.measuring import Bench, Measured, Results, usable_methods
from continuum_conformance.cli.benchmarks.trial import METHODS
from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop
from continuum_conformance.report.screen import Screen

__all__ = ["detection", "parser"]

_ABOUT = """\
For every wrong adapter of the banks: the time and the number of schedules until
`check --first` has found it, beside three alternatives on the same machine:
  machine   a plain Hypothesis state machine
  threads   threads that start together at a barrier, over and over
  frontrun  the package of that name, when it is installed
What was measured is kept in DIR/detection.json. A later call goes on from there,
and only writes DIR/detection.md and DIR/detection.svg when nothing is left to do.
"""


def parser() -> argparse.ArgumentParser:
    """What follows ``bench detection``."""
    found = command_parser("continuum-conformance bench detection", _ABOUT)
    found.add_argument(
        "banks",
        metavar="BANK",
        nargs="+",
        help="a module or folder with tables WRONG of wrong adapters, as in tests.racing",
    )
    found.add_argument(
        "--seeds", type=count_of(1, 1_000), default=10, metavar="N", help="how many (default: 10)"
    )
    found.add_argument(
        "--budget",
        type=seconds_of,
        default=60.0,
        metavar="SECONDS",
        help="of a method on an adapter with a seed (default: 60)",
    )
    found.add_argument(
        "--jobs",
        type=count_of(1, 64),
        default=1,
        metavar="N",
        help="how many trials run side by side (default: 1)",
    )
    found.add_argument(
        "--methods",
        type=_methods,
        default=tuple(METHODS),
        metavar="check,threads",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    found.add_argument(
        "--out",
        default="docs",
        metavar="DIR",
        help="where the results and the page are written (default: docs)",
    )
    found.set_defaults(command="bench detection")
    return found


def detection(options: argparse.Namespace, console: Console) -> int:
    """Measure what is not measured yet, and write the page. Raises `Stop`."""
    adapters = [adapter for bank in options.banks for adapter in adapters_of(bank)]
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(2, f"{out} cannot be made: {error.strerror}") from None
    results = Results.read(out / "detection.json")
    methods, remark = usable_methods(options.methods)
    screen = console.screen()
    if remark:
        screen.prose(remark, label="-", gutter=2)
    bench = Bench(adapters, methods, options.seeds, options.budget, results, options.jobs)
    interrupted = False
    try:
        bench.run(_progress(screen))
    except KeyboardInterrupt:
        interrupted = True
    command = shlex.join(
        [
            "continuum-conformance",
            "bench",
            "detection",
            *options.banks,
            "--seeds",
            str(options.seeds),
            "--budget",
            f"{options.budget:g}",
            *(["--jobs", str(options.jobs)] if options.jobs > 1 else ()),
            *(["--methods", ",".join(options.methods)] if len(options.methods) < len(METHODS) else ()),
        ]
    )
    try:
        (out / "detection.svg").write_text(picture(adapters, results), "utf-8")
        (out / "detection.md").write_text(page(adapters, results, command), "utf-8")
    except OSError as error:
        raise Stop(3, f"{out} cannot be written to: {error.strerror or error}") from None
    screen.line(f"page: {out / 'detection.md'}")
    screen.flush()
    if interrupted:
        raise Stop(3, "interrupted; the same command goes on where it ended")
    return 0


def _progress(screen: Screen) -> Callable[[int, int, Measured, Wrong], None]:
    def told(number: int, total: int, measured: Measured, adapter: Wrong) -> None:
        found = measured.found
        how = f"{found.seconds:7.2f} s" if found.found else "not found"
        screen.line(
            f"{number:5}/{total}  {measured.method:8}  seed {measured.seed:<3} {how:>9}  {adapter.name}"[:80]
        )
        screen.flush()

    return told


def _methods(text: str) -> Sequence[str]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        told = ", ".join(map(repr, unknown)) or "nothing"
        raise argparse.ArgumentTypeError(f"{told} is no method; there are {', '.join(METHODS)}")
    return names
