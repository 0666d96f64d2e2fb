"""Adapters that are wrong only when workers race, each with one fault, and correct ones of other styles."""
