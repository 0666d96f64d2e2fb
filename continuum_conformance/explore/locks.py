"""Locks that know about turns: what an adapter's threads wait for, seen by the scheduler.

An adapter's locks are replaced by ours in two ways. What its code makes from now on comes from our factories, which
stand in for `threading.Lock`, `threading.RLock` and `queue.SimpleQueue` – wherever the adapter keeps a name for
them – and decide by the stack whether the adapter asks. What it has already made is found from its modules and
objects and wrapped where it is kept (`Substitution.adopt`). Conditions, events, semaphores, barriers, queues and
futures are Python on top of locks, so they need nothing of their own.

A lock of ours always is a real lock too: in a thread that is no worker of a run it does just what it did before,
so an adapter works on unchanged, with some of its threads outside. For a worker, acquiring is a point, and a lock
that is taken makes it wait for its turn instead of blocking its thread. Releasing is no point: whom it wakes can
be chosen at the next point, and nothing shared happens in between.
"""

from __future__ import annotations

import _thread
import collections
import contextlib
import functools
import queue
import sys
import threading
import time
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

from continuum_conformance.explore.lines_sites import WRITES_ANYTHING, Site
from continuum_conformance.explore.lines_turns import Turns, Worker
from continuum_conformance.explore.reduction import LOCK, Touches

__all__ = ["ControlledLock", "ControlledQueue", "ControlledRLock", "Substitution", "under_control"]

_real_lock = allocate_lock
_real_rlock = threading.RLock
_real_queue = queue.SimpleQueue
_real_sleep = time.sleep
_LOCK = type(allocate_lock())
_RLOCK = type(threading.RLock())


class _Control:
    """The run under way in this process, if there is one."""

    turns: Turns | None = None


@contextlib.contextmanager
def under_control(turns: Turns) -> Iterator[None]:
    """For as long as the block takes, locks ask these turns."""
    if _Control.turns is not None:
        raise RuntimeError("another run is under way in this process")
    _Control.turns = turns
    try:
        yield
    finally:
        _Control.turns = None


def _current(what: str) -> tuple[Turns, Worker] | None:
    """The run and the worker whose thread this is; None elsewhere, where it is noted that someone else took part."""
    turns = _Control.turns
    if turns is None or turns.starting == get_ident():
        return None
    worker = turns.by_ident.get(get_ident())
    if worker is None:
        turns.foreign(what)
        return None
    return turns, worker


def _released(touches: Touches) -> None:
    turns = _Control.turns
    worker = turns.by_ident.get(get_ident()) if turns is not None else None
    if turns is not None and worker is not None:
        turns.released(worker, touches)


_places: dict[tuple[str, int], str] = {}
_OURS = tuple(
    str(Path(file).resolve())
    for file in (__file__, threading.__file__, queue.__file__, contextlib.__file__)
    if file is not None
)


def _place() -> str:
    """Where the adapter stands: file and line of the innermost frame that is neither ours nor the library's."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in _OURS:
        frame = frame.f_back
    key = (frame.f_code.co_filename, frame.f_lineno)
    if key not in _places:
        _places[key] = f"{Path(key[0]).name}:{key[1]}"
    return _places[key]


class ControlledLock:
    """A lock. ``label`` is its name for a reader; locks of one label are taken for the same one by the walk."""

    __slots__ = ("__weakref__", "_holder", "_maker", "_real", "label", "touches")

    def __init__(self, label: str, real: Any = None, maker: Worker | None = None) -> None:
        self.label = label
        self.touches = frozenset({(LOCK + label, True)})
        self._real = real if real is not None else _real_lock()
        self._holder: Worker | None = None
        # Nobody else has a lock that has just been made: its maker's first acquire is no point. So a condition's
        # waiter, which is made, taken and waited for, is one point, not two.
        self._maker = maker

    # -- as a blocker --

    def free(self, worker: Worker) -> bool:  # noqa: ARG002 - a reentrant lock asks who wants it
        """Whether a worker would get it now."""
        return not self._real.locked()

    def take(self) -> bool:
        """Get it without waiting."""
        return bool(self._real.acquire(False))

    def holder(self) -> Worker | None:
        """The worker that holds it."""
        return self._holder

    # -- as a lock --

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As a real lock does."""
        current = _current(f"the lock {self.label}")
        if current is None:
            if _Control.turns is None or blocking or timeout != -1:
                return bool(self._real.acquire(blocking, timeout))
            return bool(self._real.acquire(False))
        turns, worker = current
        if (not blocking and timeout != -1) or (blocking and timeout < 0 and timeout != -1):
            return bool(self._real.acquire(blocking, timeout))  # raises
        if self._maker is worker and self.take():
            taken = True
        elif blocking:
            site = Site(f"{_place()} acquire {self.label}", self.touches)
            taken = turns.wait(worker, self, site, seconds=None if timeout == -1 else timeout)
        else:
            # It may come while another one holds the lock, and anything that it does then may matter.
            site = Site(f"{_place()} try to acquire {self.label}", self.touches | WRITES_ANYTHING)
            taken = turns.attempt(worker, self, site)
        self._maker = None
        if taken:
            self._holder = worker
        return taken

    def release(self) -> None:
        """As a real lock does."""
        self._holder = None
        self._real.release()
        _released(self.touches)

    def locked(self) -> bool:
        """As a real lock does."""
        return bool(self._real.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self.label}, {'locked' if self.locked() else 'unlocked'}>"

    acquire_lock, release_lock, locked_lock = acquire, release, locked

    def _is_owned(self) -> bool:
        # A condition would try to acquire it, which is a point.
        return self.locked()

    def _at_fork_reinit(self) -> None:
        self._real = _real_lock()
        self._holder = None


class ControlledRLock:
    """A reentrant lock. Only the outermost acquire is a point: the others never wait and order nothing."""

    __slots__ = ("__weakref__", "_count", "_holder", "_ident", "_real", "label", "touches")

    def __init__(self, label: str, real: Any = None) -> None:
        self.label = label
        self.touches = frozenset({(LOCK + label, True)})
        self._real: Any = real if real is not None else _real_rlock()
        self._holder: Worker | None = None
        self._ident: int | None = None
        self._count = 0

    # -- as a blocker --

    def free(self, worker: Worker) -> bool:
        """Whether a worker would get it now."""
        if self._count:
            return self._ident == worker.ident
        # Nobody has it through us; perhaps a thread has that took it before it was wrapped.
        if self._real.acquire(blocking=False):
            self._real.release()
            return True
        return False

    def take(self) -> bool:
        """Get it without waiting."""
        if not self._real.acquire(blocking=False):
            return False
        self._count += 1
        self._ident = get_ident()
        return True

    def holder(self) -> Worker | None:
        """The worker that holds it."""
        return self._holder

    # -- as a lock --

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As a real lock does."""
        if self._ident == get_ident():
            return self.take()
        current = _current(f"the lock {self.label}")
        if current is None or (not blocking and timeout != -1) or (timeout < 0 and timeout != -1):
            if not self._real.acquire(blocking, timeout):
                return False
            self._count += 1
            self._ident = get_ident()
            return True
        turns, worker = current
        if blocking:
            site = Site(f"{_place()} acquire {self.label}", self.touches)
            taken = turns.wait(worker, self, site, seconds=None if timeout == -1 else timeout)
        else:
            # It may come while another one holds the lock, and anything that it does then may matter.
            site = Site(f"{_place()} try to acquire {self.label}", self.touches | WRITES_ANYTHING)
            taken = turns.attempt(worker, self, site)
        if taken:
            self._holder = worker
        return taken

    def release(self) -> None:
        """As a real lock does."""
        if self._ident != get_ident():
            self._real.release()  # of one taken before it was wrapped; else raises
            return
        self._count -= 1
        if not self._count:
            self._ident = self._holder = None
        self._real.release()
        if not self._count:
            _released(self.touches)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self.label}, count={self._count}>"

    # What a condition asks of its lock.

    def _is_owned(self) -> bool:
        return bool(self._real._is_owned())

    def _release_save(self) -> Any:
        count, self._count, self._ident, self._holder = self._count, 0, None, None
        saved = self._real._release_save()
        _released(self.touches)
        return count, saved

    def _acquire_restore(self, state: Any) -> None:
        count, saved = state
        current = _current(f"the lock {self.label}")
        if current is None:
            self._real._acquire_restore(saved)
        else:
            turns, worker = current
            turns.wait(worker, self, Site(f"{_place()} acquire {self.label}", self.touches))
            for _ in range(count - 1):
                self._real.acquire()
            self._holder = worker
        self._count, self._ident = count, get_ident()

    def _at_fork_reinit(self) -> None:
        self._real._at_fork_reinit()
        self._count, self._ident, self._holder = 0, None, None


class ControlledQueue:
    """A `queue.SimpleQueue`, which is C and has no lock to replace."""

    def __init__(self, label: str, real: Any = None) -> None:
        self.label = label
        self.touches = frozenset({(f"queue {label}", True)})
        self._real = real if real is not None else _real_queue()

    def free(self, worker: Worker) -> bool:  # noqa: ARG002
        """Whether there is something to get."""
        return not self._real.empty()

    def take(self) -> bool:
        """Whether there is something to get."""
        return not self._real.empty()

    def holder(self) -> Worker | None:
        """None: nobody is known to put something in."""
        return None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As a real queue does."""
        current = _current(f"the queue {self.label}")
        if current is None:
            return self._real.get(block, timeout)
        turns, worker = current
        site = Site(f"{_place()} get from {self.label}", self.touches)
        if not block or (timeout is not None and timeout < 0):
            turns.point(worker, site)
            return self._real.get(block, timeout)
        while True:
            if not turns.wait(worker, self, site, seconds=timeout):
                raise queue.Empty
            with contextlib.suppress(queue.Empty):  # a thread that is no worker was faster
                return self._real.get_nowait()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As a real queue does."""
        current = _current(f"the queue {self.label}")
        if current is not None:
            turns, worker = current
            turns.point(worker, Site(f"{_place()} put into {self.label}", self.touches))
        self._real.put(item, block, timeout)

    def get_nowait(self) -> Any:
        """As a real queue does."""
        return self.get(False)

    def put_nowait(self, item: Any) -> None:
        """As a real queue does."""
        self.put(item, False)

    def empty(self) -> bool:
        """As a real queue does."""
        return bool(self._real.empty())

    def qsize(self) -> int:
        """As a real queue does."""
        return int(self._real.qsize())


class _Factory(type):
    """A class that makes what ``make`` says, and counts as the type of the real thing."""

    make: Callable[[], Any]
    kinds: tuple[type, ...]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - none of the originals needs any
        return cls.make()

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, cls.kinds)


class Substitution:
    """Puts our locks in the place of an adapter's, and takes our factories away again.

    Args:
        owns: whether a file is the adapter's.
        kit: whether a file is the kit's, whose locks stay real.
    """

    def __init__(self, owns: Callable[[str], bool], kit: Callable[[str], bool]) -> None:
        self._owns, self._kit = owns, kit
        self._wrapped: dict[int, tuple[Any, Any]] = {}
        self._undo: list[Callable[[], None]] = []
        self.kept: dict[str, list[Any]] = {}
        """By the name of an attribute, the functions and the like that the adopted objects keep there."""
        self.cells: dict[int, dict[str, list[Any]]] = {}
        """By the id of a code object: what its functions hold in the variables of their closures."""
        lock = self._factory("Lock", self._make_lock, (_LOCK, ControlledLock))
        self._stand_ins: dict[int, Any] = {
            id(_real_lock): lock,
            id(_real_rlock): self._factory("RLock", self._make_rlock, (_RLOCK, ControlledRLock)),
            id(_RLOCK): self._factory("RLock", self._make_rlock, (_RLOCK, ControlledRLock)),
            id(_real_queue): self._factory("SimpleQueue", self._make_queue, (_real_queue, ControlledQueue)),
            id(_real_sleep): _sleep,
        }
        self._stand_ins[id(_thread.allocate_lock)] = lock
        self._stand_ins[id(threading.Lock)] = lock

    @staticmethod
    def _factory(name: str, make: Callable[[], Any], kinds: tuple[type, ...]) -> Any:
        return _Factory(name, (), {"make": staticmethod(make), "kinds": kinds})

    # -- the factories --

    def install(self) -> None:
        """Let the factories of the standard library, and the adapter's names for them, be ours."""
        if self._undo:
            return
        for module, name in (
            (threading, "Lock"),
            (threading, "RLock"),
            (threading, "_allocate_lock"),
            (queue, "SimpleQueue"),
            (time, "sleep"),
        ):
            stand_in = self._stand_ins.get(id(getattr(module, name)))
            if stand_in is None:
                self.remove()
                raise RuntimeError(f"{module.__name__}.{name} has been replaced by someone else")
            self._set(vars(module), name, stand_in)

    def remove(self) -> None:
        """Take all our factories away. Locks that were made meanwhile stay; without a run they are plain locks."""
        while self._undo:
            self._undo.pop()()

    def _set(self, names: dict[str, Any], name: str, value: Any) -> None:
        before = names[name]
        names[name] = value

        def undo() -> None:
            names[name] = before

        self._undo.append(undo)

    def _asked_by_adapter(self) -> str | None:
        """Where the adapter asks for a lock; None when someone else does."""
        turns = _Control.turns
        if turns is not None and turns.starting == get_ident():
            return None
        frame = sys._getframe(2)
        while frame.f_back is not None:
            frame = frame.f_back
            file = frame.f_code.co_filename
            if self._owns(file):
                return f"{Path(file).name}:{frame.f_lineno}"
            if file not in _OURS and self._kit(file):
                return None
        return None

    def _make_lock(self) -> Any:
        place = self._asked_by_adapter()
        if place is None:
            return _real_lock()
        turns = _Control.turns
        maker = turns.by_ident.get(get_ident()) if turns is not None else None
        return ControlledLock(f"lock of {place}", maker=maker)

    def _make_rlock(self) -> Any:
        place = self._asked_by_adapter()
        return _real_rlock() if place is None else ControlledRLock(f"lock of {place}")

    def _make_queue(self) -> Any:
        place = self._asked_by_adapter()
        return _real_queue() if place is None else ControlledQueue(f"queue of {place}")

    # -- what there is already --

    def adopt_modules(self) -> None:
        """Wrap the locks of the adapter's modules, and give them our factories where they keep the real ones."""
        modules = [thing for thing in list(sys.modules.values()) if isinstance(thing, ModuleType)]
        self.adopt(*(module for module in modules if self._owns_module(module)))

    def adopt(self, *roots: Any) -> None:
        """Wrap the locks that are reached from these through objects, containers and functions of the adapter's."""
        pending: list[tuple[Any, str]] = [(root, type(root).__name__) for root in roots]
        forced = {id(root) for root in roots}
        seen: set[int] = set()
        while pending:
            thing, name = pending.pop()
            if id(thing) in seen or isinstance(thing, str | bytes | int | float | None):
                continue
            seen.add(id(thing))
            self._visit(thing, name, pending, forced=id(thing) in forced)

    def _visit(self, thing: Any, name: str, pending: list[tuple[Any, str]], *, forced: bool) -> None:
        def each(place: Any, key: Any, value: Any, label: str) -> None:
            """One member: replaced where it is kept, or visited next."""
            ours = self._ours(value, label)
            if ours is value:
                pending.append((value, label))
            elif isinstance(place, CellType):
                place.cell_contents = ours
            else:
                place[key] = ours

        if isinstance(thing, ModuleType):
            if self._owns_module(thing):
                for key, value in list(vars(thing).items()):
                    if id(value) in self._stand_ins and self._undo:
                        self._set(vars(thing), key, self._stand_ins[id(value)])
                    else:
                        each(vars(thing), key, value, key)
        elif isinstance(thing, dict):
            for key, value in list(thing.items()):
                each(thing, key, value, name)
            if isinstance(thing, collections.defaultdict) and id(thing.default_factory) in self._stand_ins:
                thing.default_factory = self._stand_ins[id(thing.default_factory)]
        elif isinstance(thing, list | collections.deque):
            for place, value in enumerate(thing):
                each(thing, place, value, name)
        elif isinstance(thing, tuple | set | frozenset):
            pending.extend((value, name) for value in thing)
        elif isinstance(thing, staticmethod | classmethod):
            pending.append((thing.__func__, name))
        elif isinstance(thing, MethodType):
            pending.extend(((thing.__self__, name), (thing.__func__, name)))
        elif isinstance(thing, FunctionType):
            self._visit_function(thing, pending, each)
        elif isinstance(thing, type):
            if self._owns_type(thing):
                pending.extend((base, base.__name__) for base in thing.__bases__)
                for key, value in list(vars(thing).items()):
                    ours = self._ours(value, f"{thing.__name__}.{key}")
                    if ours is value:
                        pending.append((value, key))
                    else:
                        setattr(thing, key, ours)
        elif isinstance(thing, threading.Condition):
            self._rewire(thing, name)
        elif not isinstance(thing, threading.Thread) and (
            forced or self._owns_type(type(thing)) or type(thing).__module__ in ("threading", "queue")
        ):
            label = name if type(thing).__module__ in ("threading", "queue") else type(thing).__name__
            pending.append((type(thing), type(thing).__name__))
            for key, value in _members(thing):
                if callable(value):
                    self._keep(key, value)
                ours = self._ours(value, f"{label}.{key}")
                if ours is value:
                    pending.append((value, f"{label}.{key}"))
                else:
                    object.__setattr__(thing, key, ours)

    def _keep(self, name: str, value: Any) -> None:
        known = self.kept.setdefault(name, [])
        function = getattr(value, "__func__", value)  # each handle may have a bound method of its own
        if not any(function is getattr(other, "__func__", other) for other in known):
            known.append(value)

    def _visit_function(
        self,
        function: FunctionType,
        pending: list[tuple[Any, str]],
        each: Callable[[Any, Any, Any, str], None],
    ) -> None:
        # Also of code without a file: a dataclass's constructor keeps `default_factory=threading.Lock` in a cell.
        file = function.__code__.co_filename
        if not (self._owns(file) or file.startswith("<")):
            return
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # an empty cell
                value = cell.cell_contents
                held = self.cells.setdefault(id(function.__code__), {}).setdefault(variable, [])
                if not any(value is other for other in held):
                    held.append(value)
                if id(value) in self._stand_ins:
                    if self._undo:
                        cell.cell_contents = self._stand_ins[id(value)]
                        self._undo.append(functools.partial(setattr, cell, "cell_contents", value))
                else:
                    each(cell, None, value, variable)
        if self._undo and any(id(value) in self._stand_ins for value in function.__defaults__ or ()):
            before = function.__defaults__ or ()
            function.__defaults__ = tuple(self._stand_ins.get(id(value), value) for value in before)
            self._undo.append(functools.partial(setattr, function, "__defaults__", before))
        pending.extend((value, function.__name__) for value in vars(function).values())

    def _ours(self, thing: Any, label: str) -> Any:
        """Our lock around a real one, always the same one; anything else as it is."""
        kinds: dict[type, Callable[[str, Any], Any]] = {
            _LOCK: ControlledLock,
            _RLOCK: ControlledRLock,
            _real_queue: ControlledQueue,
        }
        make = kinds.get(type(thing))
        if make is None:
            return thing
        if id(thing) not in self._wrapped:
            self._wrapped[id(thing)] = (thing, make(label, thing))
        return self._wrapped[id(thing)][1]

    def _rewire(self, condition: Any, name: str) -> None:
        """Let a condition use our lock; it keeps its waiters, and copies of its lock's methods."""
        lock = self._ours(condition._lock, name)
        if lock is condition._lock:
            return
        condition._lock, condition.acquire, condition.release = lock, lock.acquire, lock.release
        for method in ("_release_save", "_acquire_restore", "_is_owned"):
            if hasattr(lock, method):
                setattr(condition, method, getattr(lock, method))

    def _owns_module(self, module: ModuleType) -> bool:
        # Not by attribute: a module may be lazy, and import itself when it is asked.
        return self._owns(vars(module).get("__file__") or "<none>")

    def _owns_type(self, kind: type) -> bool:
        for base in kind.__mro__:
            module = sys.modules.get(base.__module__)
            if module is not None and self._owns_module(module):
                return True
        return False


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(thing, "__dict__", {}).items())
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = (
                f"_{kind.__name__.lstrip('_')}{slot}"
                if slot.startswith("__") and not slot.endswith("__")
                else slot
            )
            with contextlib.suppress(AttributeError):
                yield name, getattr(thing, name)


def _sleep(seconds: float) -> None:
    """`time.sleep`: in a worker, others go first instead."""
    turns = _Control.turns
    worker = turns.by_ident.get(get_ident()) if turns is not None else None
    if turns is None or worker is None:
        _real_sleep(seconds)
    else:
        turns.pause(worker, Site(f"{_place()} sleep"), seconds)
