"""Whole clusters of workers over a journal, in virtual time, under faults. See ``docs/simulate.md``."""
