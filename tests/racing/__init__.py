"""Adapters that are wrong only when workers race, each with one fault, and correct ones of other styles."""

SHOWS_IN = "a race"
"""What the adapters of this bank need to show that they are wrong."""
