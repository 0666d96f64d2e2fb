"""Engines and adapters that are wrong on purpose, in ways that a cluster shows."""
