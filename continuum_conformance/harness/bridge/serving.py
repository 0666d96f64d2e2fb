"""The other direction: an adapter in Python as a program on the bridge (``continuum-conformance serve TARGET``)."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, BinaryIO

from continuum_conformance.contract.clauses import CONTRACT_VERSION
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.harness.bridge.dialogue import PROTOCOL, reply_of_outcome
from continuum_conformance.harness.handle import Handle, HarnessError
from continuum_conformance.harness.subject import Subject
from continuum_conformance.model import Operation
from continuum_conformance.model.tagged import decode

__all__ = ["Server", "serve"]

FOR_EVER = 86_400.0
"""Seconds that a call may take: who asks has a limit of its own."""


class _Served:
    """One handle, and the thread in which its requests are carried out, one after another."""

    def __init__(self, server: Server, handle: Handle) -> None:
        self._server, self._handle = server, handle
        self._requests: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="served", daemon=True).start()

    def take(self, request: Mapping[str, Any]) -> None:
        self._requests.put(request)

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            if request["op"] == "close":
                self._server.reply(request, self._closed())
                return
            self._server.reply(request, self._outcome(request))

    def _closed(self) -> dict[str, Any]:
        try:
            self._handle.close()
        except HarnessError as error:
            return _raw(error)
        return {"kind": "value", "value": None}

    def _outcome(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            arguments = {name: decode(request["args"][name]) for name in OPERATIONS[request["op"]]}
        except (KeyError, TypeError, ValueError) as error:
            return {"kind": "raw", "error": "BadRequest", "message": str(error)}
        operation = Operation(request["op"], arguments, self._handle.worker)
        call = self._handle.call if self._handle.is_async else self._handle.direct
        return reply_of_outcome(call(operation))


class Server:
    """Answers requests, and knows the handles. Replies are written to ``sink``, a line each, from any thread."""

    def __init__(self, subject: Subject, sink: BinaryIO) -> None:
        self._subject, self._sink = subject, sink
        self._writing = threading.Lock()
        self._handles: dict[Any, _Served] = {}

    def reply(self, request: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Write the reply to a request."""
        line = json.dumps({"id": request["id"], **data}, separators=(",", ":"), allow_nan=False)
        with self._writing:
            self._sink.write(line.encode() + b"\n")

    def take(self, request: Mapping[str, Any]) -> bool:
        """Carry out a request, or have it carried out; whether more may come."""
        op = request["op"]
        if op == "bye":
            self.reply(request, {"kind": "value", "value": None})
            return False
        if op == "hello":
            self.reply(request, {"kind": "value", "value": self._hello()})
        elif op == "open":
            self.reply(request, self._opened(request["args"]))
        elif request.get("handle") not in self._handles or (op != "close" and op not in OPERATIONS):
            message = f"{op} of the handle {request.get('handle')!r}"
            self.reply(request, {"kind": "raw", "error": "BadRequest", "message": message})
        elif op == "close":
            self._handles.pop(request["handle"]).take(request)
        else:
            self._handles[request["handle"]].take(request)
        return True

    def _hello(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "name": self._subject.name,
            "language": f"Python {platform.python_version()}",
            "contract": CONTRACT_VERSION,
            "capabilities": sorted(self._subject.declared),
            "needs": sorted(self._subject.needs),
            "tables": sorted(getattr(self._subject.harness, "tables", None) or ()),
        }

    def _opened(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        subject = self._subject
        subject.dsn = arguments.get("dsn") or os.environ.get("JOURNAL_DSN")
        subject.directory = arguments.get("directory") or os.environ.get("JOURNAL_DIRECTORY")
        try:
            handle = subject.open(str(arguments.get("worker", "A")))
        except HarnessError as error:
            return _raw(error)
        number = len(self._handles) + 1
        while number in self._handles:
            number += 1
        self._handles[number] = _Served(self, handle)
        return {"kind": "value", "value": number}


def _raw(error: HarnessError) -> dict[str, Any]:
    return {"kind": "raw", "error": "HarnessError", "message": str(error), "detail": error.detail}


def serve(target: Any) -> None:
    """Offer an adapter on standard input and output until bye, or until the input ends.

    What the adapter prints goes to standard error.

    Raises:
        TargetError: when the target cannot be loaded.
    """
    replies = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with os.fdopen(replies, "wb", buffering=0) as sink:
        server = Server(Subject(target, limit=FOR_EVER), sink)
        for line in sys.stdin.buffer:
            if not server.take(json.loads(line)):
                break
