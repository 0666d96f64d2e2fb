"""``continuum-conformance serve``: an adapter in Python as a program on the bridge."""

from __future__ import annotations

import argparse
import os
import sys

from continuum_conformance.cli.console import Console
from continuum_conformance.cli.stop import Stop
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness.bridge.serving import serve as offer

__all__ = ["serve"]


def serve(options: argparse.Namespace, console: Console) -> int:
    """Serve until bye, or until standard input ends."""
    try:
        offer(options.target)
    except TargetError as error:
        raise Stop(2, str(error)) from None
    console.flush()
    sys.stderr.flush()
    os._exit(0)  # a hung thread of the adapter's must not keep the process
