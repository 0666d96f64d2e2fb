"""`bench detection`: what it takes for a bank, how it goes on where it ended, and what its page and picture say."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the adapters are named as `tests.racing...`

from continuum_conformance.cli import main
from continuum_conformance.cli.benchmarks import measuring
from continuum_conformance.cli.benchmarks.bank import Wrong, adapters_of
from continuum_conformance.cli.benchmarks.detecting import parser
from continuum_conformance.cli.benchmarks.detection_page import page, picture
from continuum_conformance.cli.benchmarks.measuring import Bench, Measured, Results, carried_out
from continuum_conformance.cli.benchmarks.trial import Found, Trial
from continuum_conformance.cli.stop import Stop

LOCK_PER_HANDLE = "tests.racing.memory:LockPerHandleHarness"
RIGHT = "continuum_adapters.in_memory:InMemoryHarness"


def test_a_bank_is_a_package_or_a_folder_and_says_what_its_adapters_need(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    racing, faulty = adapters_of("tests.racing"), adapters_of("tests/faulty")
    assert {wrong.shows_in for wrong in racing} == {"a race"}
    assert {wrong.shows_in for wrong in faulty} == {"a fault", "a failover"}
    assert {wrong.shows_in for wrong in adapters_of("tests.known_bad")} == {"a sequence of calls"}
    assert LOCK_PER_HANDLE in {wrong.target for wrong in racing}
    assert len({wrong.name for wrong in (*racing, *faulty)}) == len(racing) + len(faulty)


def test_a_bank_is_found_from_elsewhere_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bank_of_mine.py").write_text("WRONG = {'a.b:C': ('FEN-5',)}\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    assert adapters_of(str(tmp_path / "mine" / "bank_of_mine.py")) == [Wrong("a.b:C", ("FEN-5",), "a race")]


@pytest.mark.parametrize(
    ("bank", "said"),
    [
        ("no.such.bank", "there is no bank 'no.such.bank'"),
        ("continuum_conformance.contract", "holds no wrong adapters"),
        (".mine", "is no name of a module"),
    ],
)
def test_what_is_no_bank_is_refused_with_what_to_do(bank, said, capsys):
    assert main(["bench", "detection", bank, "--methods", "threads"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_method_that_there_is_not_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as error:
        parser().parse_args(["tests.racing", "--methods", "check,luck"])
    assert error.value.code == 2
    assert "'luck' is no method; there are check, threads, frontrun, machine" in capsys.readouterr().err


def test_without_frontrun_the_others_are_tried_and_it_is_said(monkeypatch):
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda _name: None)
    methods, remark = measuring.usable_methods(["check", "threads", "frontrun"])
    assert methods == ["check", "threads"]
    assert "pip install 'frontrun[sql]'" in remark


def test_threads_find_a_lock_of_each_handle_and_nothing_in_the_reference():
    found = carried_out(Trial("threads", LOCK_PER_HANDLE, ("CON-1",), 0, 30.0))
    assert found.found
    assert set(found.clauses) & {"FEN-5", "CON-1", "CON-2", "CON-3"}
    assert found.scenario is not None
    missed = carried_out(Trial("threads", RIGHT, ("CON-1",), 0, 0.5))
    assert (missed.found, missed.said) == (False, "the budget was spent")
    assert missed.tries > 10


def test_what_shows_in_a_failover_is_checked_with_one():
    target = "tests.faulty.failover:CommitsLocallyHarness"
    found = carried_out(Trial("check", target, ("DUR-3",), 0, 30.0, failover=True))
    assert found.found, found.said
    assert "promoted" in found.said


def test_a_trial_that_dies_is_not_found_and_says_why():
    found = carried_out(Trial("threads", "tests.racing.memory:NoSuchHarness", (), 0, 3.0))
    assert (found.found, found.seconds) == (False, 3.0)
    assert "NoSuchHarness" in found.said


def _measured(name, method, seed, seconds, tries=4, found=True):
    return Measured(
        f"bank:{name}",
        method,
        seed,
        10.0,
        Found(found, seconds, seconds / 2, tries, ("FEN-5",), said="x"),
        2.0,
    )


ADAPTERS = [Wrong("bank:One", ("FEN-5",), "a race"), Wrong("bank:Two", ("DUR-3",), "a fault")]


def _results(file):
    trials = [
        _measured("One", "check", 0, 0.5),
        _measured("One", "check", 1, 1.5),
        _measured("One", "threads", 0, 10.0, found=False),
        _measured("Two", "check", 0, 20.0),
    ]
    return Results(file, trials, {"processors": "2"})


def test_results_are_kept_and_what_is_done_is_not_done_again(tmp_path):
    file = tmp_path / "detection.json"
    _results(file).write()
    again = Results.read(file)
    assert {(t.target, t.method, t.seed, t.found.seconds) for t in again.trials} == {
        (t.target, t.method, t.seed, t.found.seconds) for t in _results(file).trials
    }
    due = list(Bench(ADAPTERS, ["check", "threads"], 2, 10.0, again).due())
    assert [(a.name, method, seed) for a, method, seed in due] == [
        ("Two (bank)", "threads", 0),
        ("Two (bank)", "check", 1),
        ("One (bank)", "threads", 1),
        ("Two (bank)", "threads", 1),
    ]


def test_an_alternative_that_finds_nothing_is_given_up_after_two_seeds(tmp_path):
    missed = [_measured("One", "machine", seed, 10.0, found=False) for seed in (0, 1)]
    hit = [_measured("Two", "machine", 0, 1.0), _measured("Two", "machine", 1, 10.0, found=False)]
    bench = Bench(ADAPTERS, ["machine"], 3, 10.0, Results(tmp_path / "detection.json", [*missed, *hit]))
    assert [(a.name, seed) for a, _method, seed in bench.due()] == [("Two (bank)", 2)]


def test_what_shows_in_a_sequence_is_not_raced(tmp_path):
    adapter = Wrong("bank:Three", ("APP-1",), "a sequence of calls")
    bench = Bench(
        [adapter], ["check", "threads", "frontrun", "machine"], 1, 10.0, Results(tmp_path / "d.json")
    )
    assert [method for _adapter, method, _seed in bench.due()] == ["check", "machine"]


def test_trials_run_side_by_side_and_an_interruption_keeps_what_was_measured(tmp_path, monkeypatch):
    running, both = threading.Barrier(2), []

    def carried_out(trial, ended):
        if trial.seed == 0:
            both.append(running.wait(30.0))
            return Found(True, 1.0)
        assert ended.wait(30.0)
        return Found()

    monkeypatch.setattr(measuring, "carried_out", carried_out)
    file = tmp_path / "detection.json"
    bench = Bench(ADAPTERS, ["check"], 2, 10.0, Results(file), jobs=2)

    def told(number, total, measured, adapter):
        assert total == 4
        if number == 2:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        bench.run(told)
    assert len(both) == 2
    assert {trial.seed for trial in Results.read(file).trials} == {0}


def test_another_file_is_not_written_over(tmp_path):
    file = tmp_path / "detection.json"
    file.write_text(json.dumps({"other": 1}), "utf-8")
    with pytest.raises(Stop, match="holds no results of this benchmark"):
        Results.read(file)


def test_the_page_and_the_picture_tell_what_was_measured(tmp_path):
    results = _results(tmp_path / "detection.json")
    text = page(ADAPTERS, results, "continuum-conformance bench detection bank")
    assert "| One (bank) | 1.00, 1.50 (4) | – (10) |" in text
    assert "| adapter | `check --first` |\n| --- | --- |\n| Two (bank) | 20, 20 (4) |\n" in text
    assert "$ continuum-conformance bench detection bank" in text
    drawn = picture(ADAPTERS, results)
    assert "check --first: 2 of 2" in drawn
    assert "threads at a barrier: 0 of 1" in drawn


def test_an_adapter_that_is_missed_with_half_of_the_seeds_has_no_median():
    from continuum_conformance.cli.benchmarks.detection_page import _median

    trials = [_measured("One", "check", 0, 1.0), _measured("One", "check", 1, 9.0, found=False)]
    assert _median(trials) == math.inf
