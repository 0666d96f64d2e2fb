"""The other end of ``SecondProcess``: ``python -m continuum_conformance.harness.child REQUESTS ANSWERS``.

Reads requests from one inherited pipe and answers on another, a JSON object a line: first how to get the
harness, then calls, then close.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from typing import Any

from continuum_conformance.harness.subject import CALL_LIMIT, Handle, HarnessError, Subject
from continuum_conformance.model import Kind, Outcome
from continuum_conformance.model.tagged import Opaque, decode_operation, encode_outcome

__all__: list[str] = []


def _open(recipe: dict[str, Any]) -> Handle:
    sys.path[:] = [*sys.path, *(entry for entry in recipe["path"] if entry not in sys.path)]
    if "pickle" in recipe:
        # Not stored bytes: our own parent's, over a private pipe.
        target: Any = pickle.loads(base64.b64decode(recipe["pickle"]))
    else:
        target = recipe["target"]
    subject = Subject(
        target, dsn=recipe["dsn"], directory=recipe["directory"], limit=recipe.get("limit", CALL_LIMIT)
    )
    return subject.open("child")


def _encoded(outcome: Outcome) -> dict[str, Any]:
    try:
        return encode_outcome(outcome)
    except Opaque as error:
        return encode_outcome(
            Outcome(Kind.GARBAGE, message=f"the answer holds {error.described}, which is no durable term")
        )


def _main(requests: int, answers: int) -> None:
    with os.fdopen(requests, "rb") as source, os.fdopen(answers, "wb", buffering=0) as sink:

        def answer(data: dict[str, Any]) -> None:
            sink.write(json.dumps(data).encode() + b"\n")

        handle: Handle | None = None
        for line in source:
            request = json.loads(line)
            if "call" in request and handle is not None:
                answer(_encoded(handle.call(decode_operation(request["call"]))))
            elif "close" in request:
                try:
                    if handle is not None:
                        handle.close()
                    answer({"closed": True})
                except HarnessError as error:
                    answer({"failed": str(error), "detail": error.detail})
                break
            else:
                try:
                    handle = _open(request)
                except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
                    answer(
                        {"failed": str(error) or type(error).__name__, "detail": getattr(error, "detail", "")}
                    )
                    break
                answer({"opened": True})
    sys.stderr.flush()
    os._exit(0)  # a hung thread of the adapter's must not keep the process


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
