"""Loading what is optional: a missing package becomes a sentence that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from .server import PostgresUnavailable


def require(module: str, extra: str) -> Any:
    """Import and return a module of an optional dependency.

    Raises `PostgresUnavailable` that names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PostgresUnavailable(
            f"{module.partition('.')[0]} is needed here and cannot be imported ({error}): "
            f"pip install 'continuum-conformance[{extra}]'"
        ) from error
