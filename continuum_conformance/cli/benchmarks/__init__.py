"""``continuum-conformance bench``: measurements, of the kit (`detection.py`) and of adapters."""
