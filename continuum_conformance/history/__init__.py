"""Recording what concurrent workers did, and judging whether a correct object could have answered like that.

`Recorder` records; `judge` decides for a journal under the contract's specification; `check_linearizable` decides
for any sequential `Model`. A `Verdict` is passed, failed with an explanation, or inconclusive.
"""

from continuum_conformance.history.export import from_json, to_edn, to_json
from continuum_conformance.history.interleaving import Interleaving
from continuum_conformance.history.journal_judge import judge
from continuum_conformance.history.journal_model import journal_model
from continuum_conformance.history.linearizability import Model, check_linearizable, impossible
from continuum_conformance.history.recording import History, Recorded, Recorder
from continuum_conformance.history.verdict import Attempt, Explanation, Status, Verdict

__all__ = [
    "Attempt",
    "Explanation",
    "History",
    "Interleaving",
    "Model",
    "Recorded",
    "Recorder",
    "Status",
    "Verdict",
    "check_linearizable",
    "from_json",
    "impossible",
    "journal_model",
    "judge",
    "to_edn",
    "to_json",
]
