"""Every contract error names the operation that it refused and the run that it was about.

An adapter's checks stand deep below its public methods and know neither; `operation` fills both in on the way out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from continuum_conformance.contract import JournalError

__all__ = ["operation"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def operation(method: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A journal's method whose errors say its name, and its run where that is known."""

    @functools.wraps(method)
    def named(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return method(*args, **kwargs)
        except JournalError as error:
            if error.operation is None:
                error.operation = method.__name__
            if error.run_id is None:
                error.run_id = _run_id((*args, *kwargs.values()))
            raise

    return named


def _run_id(arguments: tuple[object, ...]) -> str | None:
    """The run that a call is about: after the journal and the instance stands its id, or what bears one."""
    subject = arguments[2] if len(arguments) > 2 else None
    run_id = getattr(subject, "run_id", subject)
    return run_id if isinstance(run_id, str) else None
