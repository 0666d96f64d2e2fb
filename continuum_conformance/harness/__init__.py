"""What an adapter's author writes, and how the kit loads, opens, calls and closes it."""

from continuum_conformance.harness.base import Harness
from continuum_conformance.harness.process import SecondProcess
from continuum_conformance.harness.subject import CALL_LIMIT, Handle, HarnessError, Subject

__all__ = ["CALL_LIMIT", "Handle", "Harness", "HarnessError", "SecondProcess", "Subject"]
