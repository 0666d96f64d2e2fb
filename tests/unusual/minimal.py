"""The least that is a journal: no leases, no snapshots, no rich terms, run ids are UUIDs. Written in one go.

There is no `acquire`, no `take_snapshot`; the store is a list of JSON texts per run, behind no abstraction at all.
"""

from __future__ import annotations

import json
import math
import threading
from types import SimpleNamespace
from uuid import UUID

from continuum_conformance.contract import (
    InvalidArgument,
    NotDurable,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    SequenceConflict,
)


def legal_name(name):
    if not isinstance(name, str) or not 0 < len(name) <= 255 or "\0" in name:
        raise InvalidArgument("name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("name") from None


def form(term, path, depth=0):
    """JSON text has no bytes and no nan, and its numbers are not ours: strings carry them, marked in front."""
    if depth > 64:
        raise NotDurable(path=path)
    if term is None or term is True or term is False:
        return term
    if type(term) is int:
        if term.bit_length() > 4096:
            raise NotDurable(path=path, kind="int")
        return "i" + format(term, "x")
    if type(term) is float:
        return "f" + ("nan" if math.isnan(term) else term.hex())
    if type(term) is bytes:
        if len(term) > 2**20:
            raise NotDurable(path=path, kind="bytes")
        return "b" + term.hex()
    if type(term) is str:
        try:
            if len(term.encode()) > 2**20:
                raise NotDurable(path=path, kind="long text")
        except UnicodeEncodeError:
            raise NotDurable(path=path, kind="surrogate") from None
        return "s" + term
    if type(term) is list:
        return [form(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(term)]
    if type(term) is dict:
        made = {}
        for key, item in term.items():
            if type(key) is not str:
                raise NotDurable(path=path, kind="key")
            form(key, path)
            made[key] = form(item, f"{path}.{key}", depth + 1)
        return made
    raise NotDurable(path=path, kind=type(term).__name__)


def unform(term):
    if isinstance(term, str):
        mark, rest = term[0], term[1:]
        if mark == "i":
            return int(rest, 16)
        if mark == "f":
            return float.fromhex(rest)
        return bytes.fromhex(rest) if mark == "b" else rest
    if isinstance(term, list):
        return [unform(item) for item in term]
    return {key: unform(item) for key, item in term.items()} if isinstance(term, dict) else term


RUNS: dict = {}
LOCK = threading.Lock()


class MinimalJournal:
    def _key(self, instance, run_id, token=None):
        if token is not None:
            raise InvalidArgument("there are no leases here")
        legal_name(instance.name)
        legal_name(run_id)
        try:
            fine = str(UUID(run_id)) == run_id
        except ValueError:
            fine = False
        if not fine:
            raise InvalidArgument("run ids are UUIDs")
        return instance.name, run_id

    def start_run(self, instance, run_id, workflow, input):
        key = self._key(instance, run_id)
        legal_name(workflow)
        text = json.dumps(form(input, "input"))
        with LOCK:
            if key in RUNS:
                raise RunAlreadyExists(run_id=run_id)
            RUNS[key] = {"w": workflow, "i": text, "s": "running", "r": "null", "e": "null", "h": []}

    def _active(self, key):
        if key not in RUNS:
            raise RunNotFound
        if RUNS[key]["s"] in ("completed", "failed"):
            raise RunNotActive
        return RUNS[key]

    def append(self, instance, run_id, event, lease_token):
        key = self._key(instance, run_id, lease_token)
        if not isinstance(event, dict) or not isinstance(event.get("type"), str) or not event["type"]:
            raise InvalidArgument("event")
        for name in event:
            if not isinstance(name, str):
                raise InvalidArgument("event key")
        rest = dict(event)
        seq = rest.pop("seq", None)
        if seq is not None and type(seq) is not int:
            raise InvalidArgument("seq")
        text = json.dumps(form(rest, "event"))
        with LOCK:
            run = self._active(key)
            if seq is not None and seq != len(run["h"]):
                raise SequenceConflict
            run["h"].append(text)

    def load(self, instance, run_id):
        key = self._key(instance, run_id)
        with LOCK:
            texts = list(RUNS[key]["h"]) if key in RUNS else []
        return [{**unform(json.loads(text)), "seq": n} for n, text in enumerate(texts)]

    def load_with_snapshot(self, instance, run_id, lease_token):
        if self._key(instance, run_id, lease_token) not in RUNS:
            raise RunNotFound
        return [None, self.load(instance, run_id)]

    def suspend(self, instance, run_id, lease_token):
        key = self._key(instance, run_id, lease_token)
        with LOCK:
            self._active(key)["s"] = "suspended"
        return True

    def complete(self, instance, run_id, result, lease_token):
        key = self._key(instance, run_id, lease_token)
        text = json.dumps(form(result, "result"))
        with LOCK:
            self._active(key).update(s="completed", r=text)

    def fail(self, instance, run_id, error, lease_token):
        key = self._key(instance, run_id, lease_token)
        text = json.dumps(form(error, "error"))
        with LOCK:
            self._active(key).update(s="failed", e=text)

    def get_run(self, instance, run_id):
        key = self._key(instance, run_id)
        with LOCK:
            run = dict(RUNS[key]) if key in RUNS else None
        if run is None:
            return None
        given, result, error = (unform(json.loads(run[name])) for name in "ire")
        return SimpleNamespace(
            run_id=run_id, workflow=run["w"], state=run["s"], input=given, result=result, error=error
        )


class MinimalHarness:
    capabilities = ()

    def open(self):
        return MinimalJournal()
