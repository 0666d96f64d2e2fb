"""Faults over a store that answers on a socket, in a protocol that the kit knows nothing of."""

from __future__ import annotations

import contextlib
import pickle
import socket
import socketserver
import threading
import time

from continuum_adapters.in_memory import InMemoryJournal, Store

from continuum_conformance.contract import JournalError, JournalUnavailable
from continuum_conformance.contract.journal import OPERATIONS
from tests.bank import Bank


class _Answers(socketserver.StreamRequestHandler):
    """A request is a pickled pair of an operation's name and its arguments; the answer says whether it is an error."""

    def handle(self):
        with contextlib.suppress(EOFError, OSError):
            while True:
                name, arguments = pickle.load(self.rfile)
                try:
                    answer = True, getattr(self.server.journal, name)(*arguments)
                except JournalError as error:
                    answer = False, error
                self.wfile.write(pickle.dumps(answer))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.journal = InMemoryJournal(time.monotonic, store=Store())
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Journal:
    """Connects again at the next call; what was sent when the connection went may have happened."""

    unknown = True

    def __init__(self, address):
        self._address = address
        self._lock = threading.Lock()
        self._socket = None

    def _call(self, name, arguments):
        with self._lock:
            try:
                return self._answer(pickle.dumps((name, arguments)))
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                self._lost(error)

    def _answer(self, request):
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._answers = self._socket.makefile("rb")
        self._socket.sendall(request)
        right, answer = pickle.load(self._answers)
        if right:
            return answer
        raise answer

    def _lost(self, error):
        self.close()
        raise JournalUnavailable(str(error), outcome_unknown=self.unknown) from error

    def close(self):
        if self._socket is not None:
            self._answers.close()
            self._socket.close()
            self._socket = None


def _operation(name):
    def call(self, *arguments):
        return self._call(name, arguments)

    call.__name__ = name
    return call


for _name in OPERATIONS:
    setattr(Journal, _name, _operation(_name))


class Harness:
    capabilities = frozenset({"leases", "snapshots", "rich_terms", "opaque_run_ids"})
    journal_class = Journal

    def __init__(self):
        self._server = _Server()

    def open(self):
        return self.journal_class(self._server.server_address)

    def close(self, journal):
        journal.close()


_bank = Bank(__name__, Harness)
WRONG = _bank.WRONG
SEEN_IN = _bank.SEEN_IN
RIGHT = _bank.RIGHT
wrong = _bank.wrong
right = _bank.right

right(Journal)


@wrong("ATM-1", "ATM-4", seen_in="https://github.com/redis/redis-py/issues/977")
class SendsItAgain(Journal):
    """A connection that was lost is made again, and the request sent once more, as some clients do by themselves."""

    def _call(self, name, arguments):
        with self._lock:
            try:
                return self._answer(pickle.dumps((name, arguments)))
            except (OSError, EOFError, pickle.UnpicklingError):
                self.close()
                return self._answer(pickle.dumps((name, arguments)))


@wrong("ATM-4", "ATM-1")
class SaysThatNothingHappened(Journal):
    """Whatever goes wrong with a connection is taken for a request that did not arrive."""

    unknown = False


@wrong("ATM-4", "ATM-2")
class LetsItOut(Journal):
    """The socket's own error goes to the caller."""

    def _lost(self, error):
        self.close()
        raise error


@wrong("ATM-3")
class StaysLost(Journal):
    """The connection is made once."""

    def close(self):
        pass


@wrong("ATM-1", "ATM-4")
class TakesNoAnswerForGood(Journal):
    """What was sent is taken to be done: only a read needs its answer."""

    def _lost(self, error):
        self.close()
