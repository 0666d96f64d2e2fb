"""The adapter under test: whatever its code does becomes an outcome or a diagnosis, never a crash of the kit."""

import asyncio
import contextlib
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from continuum_adapters.in_memory import InMemoryHarness, InMemoryJournal

from continuum_conformance.contract import Instance, InvalidArgument, JournalUnavailable, TargetError
from continuum_conformance.harness import HarnessError, Subject
from continuum_conformance.harness.threads import CallThread, LoopThread
from continuum_conformance.model import Kind, Operation

SHOP = Instance("shop")
LIMIT = 0.2
"""Seconds for a call that is meant to hang. Others have a limit that a busy machine does not reach."""


def get(name="get_run", **arguments):
    return Operation(name, {"instance": SHOP, "run_id": "r", **arguments})


START = Operation("start_run", {"instance": SHOP, "run_id": "r", "workflow": "w", "input": None})


class Opened:
    """Subjects that are shut down at the end of the test."""

    def __init__(self):
        self.subjects = []

    def __call__(self, harness, **how):
        subject = Subject(harness, **how)
        self.subjects.append(subject)
        return subject

    def handle(self, journal, *, close=None, translate=None, **how):
        members = {"capabilities": {"leases"}, "open": lambda self: journal}
        if close is not None:
            members["close"] = close
        if translate is not None:
            members["translate"] = staticmethod(translate)
        return self(type("Made", (), members)(), **how).open("A")


@pytest.fixture
def subject_of():
    opened = Opened()
    yield opened
    for subject in opened.subjects:
        with contextlib.suppress(HarnessError):
            subject.shutdown()


class Journal:
    """A sync journal whose `get_run` does what a test says."""

    def __init__(self, answer=lambda: None):
        self.answer = answer

    def start_run(self, *_): ...
    def append(self, *_): ...
    def load(self, *_):
        return []

    def get_run(self, *_):
        return self.answer()


class AsyncJournal:
    """The same, as coroutines."""

    def __init__(self, answer=lambda: None):
        self.answer = answer

    async def start_run(self, *_): ...
    async def append(self, *_): ...
    async def load(self, *_):
        return []

    async def get_run(self, *_):
        found = self.answer()
        return await found if asyncio.iscoroutine(found) else found


FORMS = pytest.mark.parametrize("form", [Journal, AsyncJournal])


# -- calls --


@FORMS
def test_an_answer_is_an_outcome(subject_of, form):
    handle = subject_of.handle(form())
    assert handle.call(get()).ok
    assert handle.call(get("load")).value == []
    assert handle.call(START).ok
    handle.close()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


class MuteToo(NotImplementedError):
    def __str__(self):
        raise RuntimeError("no")


class Careless(JournalUnavailable):
    def __init__(self):
        pass


@FORMS
@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (InvalidArgument("why"), Kind.ERROR, "InvalidArgument"),
        (Careless(), Kind.ERROR, "JournalUnavailable"),
        (NotImplementedError("not here"), Kind.ERROR, "NotImplementedError"),
        (MuteToo(), Kind.ERROR, "NotImplementedError"),
        (KeyError("x"), Kind.RAW, "KeyError"),
        (TimeoutError("slow"), Kind.RAW, "TimeoutError"),
        (SystemExit(3), Kind.RAW, "SystemExit"),
        (KeyboardInterrupt(), Kind.RAW, "KeyboardInterrupt"),
        (GeneratorExit(), Kind.RAW, "GeneratorExit"),
        (asyncio.CancelledError(), Kind.RAW, "CancelledError"),
        (Mute(), Kind.RAW, "Mute"),
        (StopIteration(5), Kind.RAW, None),
        (ExceptionGroup("several", [ValueError()]), Kind.RAW, "ExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_is_raised_is_an_outcome_and_the_handle_goes_on(subject_of, form, error, kind, name):
    def raises():
        raise error

    journal = form(raises)
    handle = subject_of.handle(journal)
    outcome = handle.call(get())
    assert outcome.kind is kind
    assert name is None or outcome.error == name
    assert "test_harness_subject" in outcome.detail, "the traceback shows the author's lines"
    assert "harness/subject.py" not in outcome.detail
    assert "harness/threads.py" not in outcome.detail
    assert not handle.broken
    journal.answer = lambda: None
    assert handle.call(get()).ok


class Evil:
    """A record that can hardly be looked at."""

    run_id = workflow = "x"
    __slots__ = ()

    @property
    def state(self):
        raise SystemExit(9)

    def __repr__(self):
        raise RuntimeError("no")


@FORMS
@pytest.mark.parametrize(
    "value",
    [5, [], Evil(), object(), {"state": "running"}, lambda: None, threading.Lock()],
    ids=lambda v: type(v).__name__,
)
def test_garbage_is_an_outcome(subject_of, form, value):
    outcome = subject_of.handle(form(lambda: value)).call(get())
    assert outcome.kind is Kind.GARBAGE
    assert outcome.message


def test_a_coroutine_from_a_sync_journal_is_garbage(subject_of):
    async def later():
        return None

    outcome = subject_of.handle(Journal(later)).call(get())
    assert outcome.kind is Kind.GARBAGE
    assert "coroutine" in outcome.message


def test_an_absent_method_and_one_that_cannot_be_looked_up(subject_of):
    class Strange(Journal):
        acquire = None

        def __getattr__(self, name):
            raise RuntimeError(f"who asks for {name}?")

    handle = subject_of.handle(Strange())
    acquire = Operation("acquire", {"instance": SHOP, "run_id": "r", "owner": "o", "ttl": 1})
    assert handle.call(acquire).error == "NotImplementedError"
    outcome = handle.call(get("suspend", lease_token=None))
    assert (outcome.kind, outcome.error) == (Kind.RAW, "RuntimeError")


# -- hangs --


def test_a_hang_is_told_with_the_function_where_it_hangs(subject_of):
    end = threading.Event()

    def waits_for_the_lock_in_the_pool():
        end.wait()

    handle = subject_of.handle(Journal(waits_for_the_lock_in_the_pool), limit=LIMIT)
    outcome = handle.call(get())
    end.set()
    assert outcome.kind is Kind.HANG
    assert outcome.unknown
    assert "no answer within 0.2 s" in outcome.message
    assert "waits_for_the_lock_in_the_pool" in outcome.detail
    assert "threads.py" not in outcome.detail
    assert handle.broken


async def awaits_what_never_comes():
    await asyncio.Event().wait()


def test_a_coroutine_that_hangs_is_told_with_its_stack_and_another_handle_works(subject_of):
    subject = subject_of(
        type("Made", (), {"capabilities": (), "open": lambda self: AsyncJournal(awaits_what_never_comes)})(),
        limit=LIMIT,
    )
    handle = subject.open("A")
    outcome = handle.call(get())
    assert outcome.kind is Kind.HANG
    assert "awaits_what_never_comes" in outcome.detail
    assert outcome.detail.index("get_run") < outcome.detail.index("awaits_what_never_comes"), (
        "outermost first"
    )
    assert "threads.py" not in outcome.detail.partition("the loop's thread:")[0]
    assert subject.open("B").call(get("load"), limit=10).ok


def test_a_blocked_event_loop_is_told_and_the_next_handle_has_a_new_one(subject_of):
    end = threading.Event()

    def blocks_the_loop():
        end.wait()

    subject = subject_of(
        type("Made", (), {"capabilities": (), "open": lambda self: AsyncJournal(blocks_the_loop)})(),
        limit=LIMIT,
    )
    handle = subject.open("A")
    outcome = handle.call(get())
    assert outcome.kind is Kind.HANG
    assert "blocks_the_loop" in outcome.detail
    assert subject.open("B").call(get("load"), limit=10).ok
    end.set()


def test_the_stack_shows_the_authors_files_whatever_they_are_called(subject_of, tmp_path, monkeypatch):
    folder = tmp_path / "my_harness"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "threads.py").write_text(
        "async def stuck(event):\n    await event.wait()\ndef still(event):\n    event.wait()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from my_harness.threads import still, stuck

    end = threading.Event()
    outcome = subject_of.handle(Journal(lambda: still(end)), limit=LIMIT).call(get())
    end.set()
    assert "in still" in outcome.detail
    outcome = subject_of.handle(AsyncJournal(lambda: stuck(asyncio.Event())), limit=LIMIT).call(get())
    assert "in stuck" in outcome.detail


def test_a_background_task_that_exits_does_not_end_the_loop(subject_of):
    ended = []

    async def exits():
        ended.append(1)
        raise SystemExit(5)

    async def leaves_a_task():
        task = asyncio.ensure_future(exits())
        while not ended:
            await asyncio.sleep(0)
        del task

    journal = AsyncJournal(leaves_a_task)
    handle = subject_of.handle(journal)
    assert handle.call(get()).ok
    assert handle.call(get("load")).ok


def test_what_comes_after_the_first_step(subject_of):
    order = []

    async def waits():
        order.append("first step")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        order.append("end")

    subject_of.handle(AsyncJournal(waits)).call(get(), then=lambda: order.append("then"))
    assert order == ["first step", "then", "end"]
    subject_of.handle(Journal(lambda: order.append("call"))).call(get(), then=lambda: order.append("then"))
    assert order[3:] == ["call", "then"]


def test_ctrl_c_is_the_users_own(subject_of):
    end, waiting = threading.Event(), threading.Event()

    def waits():
        waiting.set()
        end.wait(10)

    handle = subject_of.handle(Journal(waits))
    main = threading.main_thread().ident

    def interrupt():
        waiting.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        handle.call(get())
    end.set()


# -- translate --


class DriverError(Exception):
    pass


def fails():
    raise DriverError("duplicate key")


def test_an_exception_is_translated(subject_of):
    handle = subject_of.handle(Journal(fails), translate=lambda error: InvalidArgument(f"was {error}"))
    outcome = handle.call(get())
    assert (outcome.kind, outcome.error, outcome.message) == (
        Kind.ERROR,
        "InvalidArgument",
        "was duplicate key",
    )
    assert "in fails" in outcome.detail


def test_a_contract_error_is_not_translated(subject_of):
    def refuses():
        raise InvalidArgument("why")

    assert (
        subject_of.handle(Journal(refuses), translate=lambda _: 1 / 0).call(get()).error == "InvalidArgument"
    )


def raising(error):
    def translate(_):
        raise error

    return translate


@pytest.mark.parametrize(
    ("translate", "told"),
    [
        (lambda _: None, "duplicate key"),
        (raising(ValueError("oh")), "duplicate key (and translate() raised ValueError: oh)"),
        (raising(SystemExit(3)), "duplicate key (and translate() raised SystemExit: 3)"),
        (raising(Mute()), "duplicate key (and translate() raised Mute: (its text cannot be shown))"),
        (lambda _: "InvalidArgument", "(and translate() gave 'InvalidArgument', which is no JournalError)"),
        (lambda _: InvalidArgument, "which is no JournalError)"),
        (lambda _: ValueError("x"), "(and translate() gave ValueError('x'), which is no JournalError)"),
        (lambda: None, "(and translate() raised TypeError"),
        (5, "duplicate key"),
    ],
)
def test_a_translate_that_fails_leaves_the_exception_raw(subject_of, translate, told):
    outcome = subject_of.handle(Journal(fails), translate=translate).call(get())
    assert (outcome.kind, outcome.error) == (Kind.RAW, "DriverError")
    assert told in outcome.message


# -- open and close --


class Counting:
    capabilities = frozenset({"leases"})
    form = Journal

    def __init__(self):
        self.opened, self.closed = [], []

    def open(self):
        self.opened.append(self.form())
        return self.opened[-1]

    def close(self, journal):
        self.closed.append(journal)


class CoroutinesAllOver(Counting):
    form = AsyncJournal

    async def open(self):
        await asyncio.sleep(0)
        self.loop = asyncio.get_running_loop()
        return super().open()

    async def close(self, journal):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        super().close(journal)


class SyncOpenOfAsync(Counting):
    form = AsyncJournal


class OpenNeedsTheLoop(Counting):
    form = AsyncJournal

    def open(self):
        asyncio.get_running_loop()
        return super().open()


class OpenGivesACoroutine(Counting):
    form = AsyncJournal

    def open(self):
        return self.really_open()

    async def really_open(self):
        return super().open()


@pytest.mark.parametrize(
    "harness", [Counting, CoroutinesAllOver, SyncOpenOfAsync, OpenNeedsTheLoop, OpenGivesACoroutine]
)
def test_every_form_of_harness_opens_and_closes(subject_of, harness):
    made = harness()
    subject = subject_of(made)
    handles = [subject.open("A"), subject.open("B")]
    for handle in handles:
        assert handle.call(START).ok
        assert handle.call(get()).ok
    assert handles[0].journal is not handles[1].journal
    for handle in handles:
        handle.close()
    assert {id(handle.journal) for handle in handles} <= {id(journal) for journal in made.closed}
    assert len({id(journal) for journal in made.closed}) == len(made.closed), "nothing is closed twice"
    assert subject.is_async == (harness is not Counting)


def test_an_object_returned_twice_is_one_handle_closed_once(subject_of):
    closed = []
    journal = Journal()
    members = {
        "capabilities": (),
        "open": lambda self: journal,
        "close": lambda self, one: closed.append(one),
    }
    subject = subject_of(type("Made", (), members)())
    first, second = subject.open("A"), subject.open("B")
    first.close()
    assert closed == []
    assert second.call(get()).ok
    second.close()
    subject.shutdown()
    assert closed == [journal]


def made(**members):
    return type("Made", (), {"capabilities": (), **members})()


@pytest.mark.parametrize(
    ("opens", "told"),
    [
        (lambda self: 1 / 0, "open() raised ZeroDivisionError: division by zero"),
        (lambda self: None, "open() returned None, which is no journal: it has no start_run, append"),
        (lambda self: object(), "which is no journal"),
        (lambda self: Evil(), "a Evil whose repr raised RuntimeError, which is no journal"),
        (
            lambda self: SimpleNamespace(start_run=print, append=print),
            "which is no journal: it has no load, get_run",
        ),
        (lambda self: exit_now(), "open() raised SystemExit: 3"),
        (lambda self: interrupt_now(), "open() raised KeyboardInterrupt"),
        (lambda self: mute_now(), "open() raised Mute"),
    ],
)
def test_an_open_that_fails_is_diagnosed(subject_of, opens, told):
    with pytest.raises(HarnessError) as caught:
        subject_of(made(open=opens)).open("A")
    assert told in str(caught.value)


def exit_now():
    raise SystemExit(3)


def interrupt_now():
    raise KeyboardInterrupt


def mute_now():
    raise Mute


def test_an_open_that_fails_shows_where(subject_of):
    with pytest.raises(HarnessError) as caught:
        subject_of(made(open=lambda self: exit_now())).open("A")
    assert "in exit_now" in caught.value.detail
    assert "harness/" not in caught.value.detail


@pytest.mark.parametrize("form", ["sync", "async"])
def test_an_open_that_hangs_is_diagnosed(subject_of, form):
    end = threading.Event()

    def hangs(self):
        end.wait()

    async def hangs_too(self):
        await asyncio.Event().wait()

    subject = subject_of(made(open=hangs if form == "sync" else hangs_too), limit=LIMIT / 3)
    with pytest.raises(HarnessError, match=r"open\(\) did not come back: no answer within") as caught:
        subject.open("A")
    end.set()
    assert "hangs" in caught.value.detail


def test_an_async_open_of_a_sync_journal_is_diagnosed(subject_of):
    async def opens(self):
        return Journal()

    with pytest.raises(HarnessError, match="make all async or none"):
        subject_of(made(open=opens)).open("A")


@FORMS
def test_a_close_that_fails_is_diagnosed(subject_of, form):
    handle = subject_of.handle(form(), close=lambda self, journal: 1 / 0)
    with pytest.raises(HarnessError, match=r"close\(\) raised ZeroDivisionError"):
        handle.close()


def test_a_close_that_hangs_is_diagnosed(subject_of):
    end = threading.Event()
    handle = subject_of.handle(Journal(), close=lambda self, journal: end.wait(), limit=LIMIT)
    with pytest.raises(HarnessError, match=r"close\(\) did not come back"):
        handle.close()
    end.set()


def test_a_handle_that_hung_is_not_closed(subject_of):
    end, closed = threading.Event(), []
    handle = subject_of.handle(
        Journal(end.wait), close=lambda self, journal: closed.append(journal), limit=LIMIT
    )
    handle.call(get())
    handle.close()
    end.set()
    assert not closed


def test_threads_of_handles_that_are_gone_end(subject_of):
    before = set(threading.enumerate())
    subject = subject_of(Counting())
    handles = [subject.open(str(n)) for n in range(5)]
    for handle in handles:
        handle.call(get())
        handle.close()
    with pytest.raises(HarnessError):
        subject_of(made(open=lambda self: None)).open("A")
    with pytest.raises(HarnessError):
        subject_of(made(open=lambda self: 1 / 0)).open("A")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread.name


def test_many_threads_may_open_and_use_handles_at_once(subject_of):
    subject = subject_of(InMemoryHarness())
    outcomes = []

    def work(number):
        handle = subject.open(f"W{number}")
        outcomes.extend(handle.call(get()) for _ in range(20))
        handle.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 160
    assert all(outcome.ok for outcome in outcomes)


# -- what a harness declares and is given --


@pytest.mark.parametrize(
    ("capabilities", "told"),
    [
        (None, "has no `capabilities`; declare a set of strings"),
        ("leases", "must be a set of strings, not 'leases'"),
        (5, "must be a set of strings, not 5"),
        ({"lease"}, "unknown capability 'lease'; the contract has leases,"),
        ({"leases", 5}, "unknown capability 5"),
        ([["leases"]], "unknown capability ['leases']"),
        ({"LEASES", "b"}, "unknown capability 'LEASES', 'b'"),
    ],
)
def test_wrong_declarations_are_refused(capabilities, told):
    with pytest.raises(TargetError) as caught:
        Subject(SimpleNamespace(capabilities=capabilities, open=InMemoryJournal))
    assert told in str(caught.value)


@pytest.mark.parametrize("given", [(), [], set(), {"leases": True}, ["leases", "leases"], ("signals",)])
def test_any_collection_of_known_names_will_do(given):
    assert Subject(SimpleNamespace(capabilities=given, open=InMemoryJournal)).capabilities == frozenset(given)


def test_capabilities_may_be_withdrawn():
    subject = Subject(InMemoryHarness, without=["leases", "crash_safe"])
    assert "leases" not in subject.capabilities
    assert subject.withdrawn == {"leases"}


def test_each_handle_has_a_harness_with_its_own_dsn(subject_of):
    class Mine(Counting):
        needs = "postgres"
        dsn = "mine"

        def open(self):
            journal = super().open()
            journal.dsn = self.dsn
            return journal

    harness = Mine()
    subject = subject_of(harness, dsn="postgresql://one")
    first = subject.open("A")
    subject.dsn = "postgresql://two"
    second = subject.open("B")
    assert (first.journal.dsn, second.journal.dsn) == ("postgresql://one", "postgresql://two")
    assert harness.dsn == "mine"


def test_stdout_of_an_adapter_does_no_harm(subject_of, capsys):
    handle = subject_of.handle(Journal(lambda: print("noise")))
    assert handle.call(get()).ok
    assert "noise" in capsys.readouterr().out


# -- the threads themselves --


@pytest.mark.parametrize("runner", [lambda: CallThread("t"), LoopThread])
def test_what_is_raised_keeps_its_traceback(runner):
    thread = runner()

    async def fails_later():
        fails()

    with pytest.raises(DriverError) as caught:
        thread.run(fails_later if isinstance(thread, LoopThread) else fails, 10)
    assert caught.traceback[-1].name == "fails"
    thread.stop()


def test_a_loop_ends_with_what_is_left_on_it_cancelled():
    cancelled = []

    async def leaves_something():
        async def stays():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        leaves_something.task = asyncio.ensure_future(stays())
        await asyncio.sleep(0)

    thread = LoopThread()
    thread.run(leaves_something, 10)
    began = time.monotonic()
    thread.stop()
    assert cancelled == [True]
    assert time.monotonic() - began < 5
    assert thread.loop.is_closed()
