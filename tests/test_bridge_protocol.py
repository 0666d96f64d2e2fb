"""The bridge's protocol: the golden exchanges, the schema, breaches that say what is wrong, and corrupted dialogues."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import subprocess
import threading
from contextlib import suppress
from importlib import resources

import jsonschema
import pytest
from continuum_adapters.in_memory import InMemoryHarness

from continuum_conformance.contract import Instance
from continuum_conformance.contract.journal import OPERATIONS
from continuum_conformance.contract.targets import TargetError
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.harness.bridge import dialogue
from continuum_conformance.harness.bridge import harness as bridge
from continuum_conformance.harness.bridge.dialogue import (
    Breach,
    Dialogue,
    LeftOut,
    encoded_arguments,
    outcome_of_reply,
    reply_of_outcome,
)
from continuum_conformance.harness.bridge.harness import ProgramHarness
from continuum_conformance.harness.bridge.program import Program
from continuum_conformance.harness.bridge.serving import Server
from continuum_conformance.model import Kind, Operation
from continuum_conformance.model.tagged import decode, encode
from continuum_conformance.report.from_suite import finding_of
from continuum_conformance.report.plain import finding_text
from continuum_conformance.suite.data import LOOKALIKES, RICH
from continuum_conformance.suite.lab import Lab, Session
from continuum_conformance.suite.violation import Violation

PACKAGE = resources.files(dialogue.__package__)
EXCHANGES = [json.loads(line) for line in PACKAGE.joinpath("exchanges.jsonl").read_text("utf-8").splitlines()]
SCHEMA = json.loads(PACKAGE.joinpath("schema.json").read_text("utf-8"))
SHOP = Instance("shop")


VALIDATORS = {
    part: jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{part}"}]})
    for part in ("request", "reply")
}


def _valid(part, data):
    VALIDATORS[part].validate(data)


class Sink(io.BytesIO):
    """Where replies go; reading one waits until it is there."""

    def __init__(self):
        super().__init__()
        self._lines = 0
        self._more = threading.Condition()

    def write(self, data):
        with self._more:
            super().write(data)
            self._more.notify_all()

    def next_line(self):
        with self._more:
            while self.getvalue().count(b"\n") <= self._lines:
                assert self._more.wait(10), "no reply"
            self._lines += 1
            return self.getvalue().split(b"\n")[self._lines - 1]


def _in_process(harness):
    """What answers requests over an adapter, in this process."""
    sink = Sink()
    server = Server(Subject(harness), sink)

    def ask(request):
        server.take(request)
        return json.loads(sink.next_line())

    return ask


# -- golden exchanges --


def meant(reply):
    """What a reply says, the adapter's own words apart, in the form in which the kit would write it."""
    value = {"value": encode(decode(reply["value"]))} if "value" in reply else {}
    return {name: reply.get(name) for name in ("id", "kind", "error", "unknown")} | value


def test_the_golden_exchanges_are_what_a_served_adapter_answers():
    ask = _in_process(InMemoryHarness())
    for exchange in EXCHANGES:
        reply = ask(exchange["request"])
        if exchange["request"]["op"] == "hello":
            reply["value"]["language"] = exchange["reply"]["value"]["language"]
        assert meant(reply) == meant(exchange["reply"]), exchange["about"]


def test_the_golden_requests_are_what_the_kit_sends():
    talk = Dialogue()
    for exchange in EXCHANGES:
        request = exchange["request"]
        arguments = request["args"]
        if request["op"] in OPERATIONS:
            arguments = encoded_arguments(
                Operation(request["op"], {name: decode(value) for name, value in arguments.items()})
            )
        number, line = talk.ask(request["op"], arguments, request.get("handle"))
        assert json.loads(line) == request
        (reply,) = talk.hear(json.dumps(exchange["reply"]).encode() + b"\n")
        assert (reply.id, reply.op) == (number, request["op"])


def test_the_golden_exchanges_fit_the_schema():
    for exchange in EXCHANGES:
        _valid("request", exchange["request"])
        _valid("reply", exchange["reply"])


def test_every_operation_and_every_plain_error_has_an_exchange():
    asked = {exchange["request"]["op"] for exchange in EXCHANGES}
    assert asked == {*OPERATIONS, "hello", "open", "close", "bye"}
    named = set(SCHEMA["$defs"]["error"]["properties"]["error"]["enum"])
    from continuum_conformance.contract.errors import ERRORS

    assert named == {*ERRORS, "NotImplementedError"}


def test_what_the_kit_sends_fits_the_schema():
    for term in (*RICH, *LOOKALIKES):
        operation = Operation("start_run", {"instance": SHOP, "run_id": "r", "workflow": "w", "input": term})
        _, line = Dialogue().ask("start_run", encoded_arguments(operation), 1)
        _valid("request", json.loads(line))


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 1, "kind": "value"},
        {"id": 0, "kind": "value", "value": None},
        {"id": 1, "kind": "error", "error": "Oops"},
        {"id": 1, "kind": "value", "value": 1.5},
        {"id": 1, "kind": "value", "value": {"$": "complex", "v": 1}},
        {"id": 1, "kind": "value", "value": {"$": "int", "v": 7}},
        {"id": 1, "kind": "error", "error": "JournalUnavailable", "unknown": "yes"},
    ],
    ids=repr,
)
def test_the_schema_refuses_what_is_no_reply(wrong):
    with pytest.raises(jsonschema.ValidationError):
        _valid("reply", wrong)


# -- breaches --


def _hears(line):
    talk = Dialogue()
    talk.ask("get_run", {})
    return talk.hear(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"connecting ...\n", "no JSON, on standard output, which is for replies alone: 'connecting ...'"),
        (b"[1]\n", "no JSON object"),
        (b"{}\n", "without a whole number as its `id`"),
        (b'{"id":true}\n', "without a whole number"),
        (b'{"id":7}\n', "answered request 7, which is not outstanding (1 is)"),
        (b'{"id":1}\n{"id":1}\n', "answered request 1, which is not outstanding (none is)"),
        (b'{"id":1,"x":"\xff"}\n', "no UTF-8 (at byte 13)"),
        (b'{"id":1,"value":NaN}\n', "no JSON"),
        (b'{"id":1,"value":"\\ud800"}\n', "half of a surrogate pair"),
        (b"[" * 100_000 + b"\n", "nested too deep"),
        (b"\n", "no JSON"),
        (b"\x1b[31mred\n", r"\\x1b[31mred"),
    ],
    ids=lambda v: repr(v)[:30],
)
def test_a_breach_says_what_is_wrong(line, said):
    with pytest.raises(Breach) as breach:
        _hears(line)
    assert said in str(breach.value)


def test_a_line_has_a_longest_length(monkeypatch):
    monkeypatch.setattr(dialogue, "LONGEST", 1000)
    talk = Dialogue()
    talk.ask("get_run", {})
    assert talk.hear(b"x" * 1000) == []
    with pytest.raises(Breach, match="a line of more than"):
        talk.hear(b"x")


def test_replies_may_come_in_pieces_and_in_any_order():
    talk = Dialogue()
    for _ in range(3):
        talk.ask("get_run", {})
    data = b'{"id":3,"kind":"value"}\r\n{"id":1}\n{"id":2}\n'
    heard = [reply.id for byte in range(len(data)) for reply in talk.hear(data[byte : byte + 1])]
    assert heard == [3, 1, 2]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({}, "the kind None"),
        ({"kind": "hang"}, "the kind 'hang'"),
        ({"kind": "error", "error": 7}, "`error`: 7; it must be text"),
        ({"kind": "error", "error": "LeaseHeld", "message": []}, "`message`: []; it must be text"),
        ({"kind": "error", "error": "JournalUnavailable", "unknown": 1}, "`unknown`: 1"),
    ],
    ids=repr,
)
def test_a_reply_of_no_kind_is_a_breach(reply, said):
    with pytest.raises(Breach) as breach:
        outcome_of_reply("append", reply)
    assert said in str(breach.value)


def test_an_error_under_another_name_than_the_contracts_is_raw():
    outcome = outcome_of_reply("append", {"kind": "error", "error": "Boom", "message": "no"})
    assert (outcome.kind, outcome.error) == (Kind.RAW, "Boom")


@pytest.mark.parametrize(
    "value",
    [
        {"$": "int", "v": "zz"},
        {"$": "repeat", "v": ["a", 10**15]},
        {"$": "nest", "v": [10**12, 0]},
        7,
        [{"$": "Run"}],
    ],
    ids=repr,
)
def test_a_value_that_cannot_be_read_is_garbage(value):
    outcome = outcome_of_reply("load", {"kind": "value", "value": value})
    assert outcome.kind is Kind.GARBAGE


def test_deep_answers_are_read():
    deep = 0
    for _ in range(4000):
        deep = [deep]
    data = json.loads(b'{"id":1,"kind":"value","value":[]}')
    line = b'{"id":1,"kind":"value","value":[{"type":"x","payload":' + b"[" * 4000 + b"]" * 4000 + b"}]}\n"
    (reply,) = _hears(line)
    assert outcome_of_reply("load", reply.data).ok
    assert data["value"] == []


def _held():
    held = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    "term",
    [object(), threading.Lock(), _held(), "\ud800", {"a": ["x\udfff"]}, {"\ud800": 1}, "\ud800" * 100, 1j],
    ids=lambda v: ascii(v)[:20],
)
def test_what_cannot_be_carried_is_left_out(term):
    with pytest.raises(LeftOut):
        encoded_arguments(
            Operation("start_run", {"instance": SHOP, "run_id": "r", "workflow": "w", "input": term})
        )


def test_text_that_looks_like_the_tag_for_half_pairs_is_carried():
    term = ['{"$":"text","v":[55296]}', {"$": "text", "v": [1]}]
    encoded_arguments(
        Operation("start_run", {"instance": SHOP, "run_id": "r", "workflow": "w", "input": term})
    )


def test_an_outcome_survives_the_way_there():
    for exchange in EXCHANGES:
        op = exchange["request"]["op"]
        if op in OPERATIONS:
            reply = {
                "id": exchange["reply"]["id"],
                **reply_of_outcome(outcome_of_reply(op, exchange["reply"])),
            }
            assert meant(reply) == meant(exchange["reply"])


# -- corrupted dialogues --


class Player:
    """Stands in for a process: plays replies, one to each request, whatever was asked. Ends when its input does."""

    pid = 0

    def __init__(self, replies):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.stdin, self.stdout = (
            os.fdopen(ours_out, "wb", buffering=0),
            os.fdopen(ours_in, "rb", buffering=0),
        )
        self._sink = os.fdopen(theirs_out, "wb", buffering=0)
        self._source = os.fdopen(theirs_in, "rb")
        self.returncode = None
        self._thread = threading.Thread(target=self._play, args=(replies,), daemon=True)
        self._thread.start()

    def _play(self, replies):
        with self._sink, self._source, suppress(BrokenPipeError):
            for reply, _ in zip(replies, self._source, strict=False):
                self._sink.write(reply)

    def poll(self):
        if self.returncode is None and not self._thread.is_alive():
            self.returncode = 0
        return self.returncode

    def wait(self, timeout=None):
        self._thread.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("the player", timeout or 0)
        return self.returncode

    def kill(self):
        for end in (self.stdin, self.stdout):
            end.close()
        self._thread.join(10)


def _played(replies):
    """How a program that plays these replies is started; a later one has nothing to say."""
    turns = itertools.chain([replies], itertools.repeat([]))

    class Played(Program):
        def _spawned(self, argv, environment):
            del argv, environment
            self.player = Player(next(turns))
            return self.player

        def signal(self, number):
            del number
            self.player.kill()

    return Played


class Recorder:
    """Keeps what a served adapter answers."""

    def __init__(self):
        self.lines = []
        ask = _in_process(InMemoryHarness())
        recorder = self

        class Recorded(Program):
            def __init__(self, command, environment):
                del command
                self.environment = dict(environment)
                self.handles = set()
                self.usable = True
                self._talk = Dialogue()

            usable = True

            def ask(self, op, arguments, seconds, handle=None):
                del seconds
                _, request = self._talk.ask(op, arguments, handle)
                reply = ask(json.loads(request))
                recorder.lines.append(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
                return reply

            def end(self, seconds):
                return ""

            def drop(self):
                pass

        self.start = Recorded


def _scenario(start, limit=10.0):
    """A few of all operations through a program; what the kit makes of them, told as a user would see it."""
    harness = ProgramHarness("a program", start=start)
    subject = Subject(harness, limit=limit)
    session = Session(subject, salt="abcdef")
    lab = Lab(session)
    told = "nothing"
    try:
        run = lab.run()
        run.start("checkout", {"a": [1.5, b"x", None, 2**70]})
        run.append({"type": "step", "text": "é\0"})
        run.acquire("alice")
        run.append(token=run.token)
        run.append(token=None)
        run.snapshot(1, {0: {"x": [1]}})
        run.load_with_snapshot(run.token)
        run.renew()
        run.release()
        run.complete({"ok": True})
        lab.look(run.key, on="B")
        session.close_all()
    except Violation as violation:
        told = finding_text(finding_of(violation, subject), width=80)
    except HarnessError as error:
        told = f"the harness: {error}"
    with suppress(HarnessError):
        session.close_all()
    return told


def _corrupted(lines, source):
    """The replies with one to three bytes changed, left out, put in or doubled, or a line gone, or twice there."""
    lines = list(lines)
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(lines))
        line = bytearray(lines[place])
        at = source.randrange(len(line)) if line else 0
        how = source.randrange(7)
        if how == 0 and line:
            line[at] ^= 1 << source.randrange(8)
        elif how == 1 and line:
            line[at] = source.randrange(256)
        elif how == 2:
            del line[at : at + source.randint(1, 20)]
        elif how == 3:
            line[at:at] = source.choice(
                [b"\n", b"{", b"]", b'"', b"\\ud800", b"9" * 50, b"\0", b"null", b"-", b"1e9"]
            )
        elif how == 4:
            line = line + line
        elif how == 5:
            line = line[:at]
        else:
            line = bytearray(source.randbytes(source.randint(0, 40)))
        lines[place] = bytes(line)
    return lines


def test_a_thousand_corruptions_of_a_dialogue_never_crash_or_hang_the_kit(monkeypatch):
    recorder = Recorder()
    assert _scenario(recorder.start) == "nothing"
    # The first line is the answer of a process that only said hello.
    lines = recorder.lines
    assert len(lines) > 15
    assert _scenario(_played_twice(lines)) == "nothing"
    for limit in ("START_LIMIT", "CLOSE_LIMIT"):
        monkeypatch.setattr(bridge, limit, 0.01)  # whether a reply comes in time decides nothing here
    seen = {"nothing": 0, "a finding": 0, "refused": 0}
    for seed in range(1000):
        try:
            told = _scenario(_played_twice(_corrupted(lines, random.Random(seed))), 0.01)
        except TargetError:
            seen["refused"] += 1
            continue
        assert "Traceback" not in told
        seen["nothing" if told == "nothing" else "a finding"] += 1
    assert seen["a finding"] > 300, seen
    assert seen["refused"] > 10, seen


def _played_twice(lines):
    """Two processes: one that is asked who it is, and one that is used."""
    hello, *rest = lines
    first = iter([[hello], rest])

    class Played(_played([])):
        def _spawned(self, argv, environment):
            del argv, environment
            self.player = Player(next(first, []))
            return self.player

    return Played
