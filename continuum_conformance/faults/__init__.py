"""Faults of what lies between an adapter and its store, whichever store it is."""
