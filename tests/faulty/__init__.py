"""Adapters that are wrong only when a connection, a client or a server dies, and right ones beside them."""

SHOWS_IN = "a fault"
"""What the adapters of this bank need to show that they are wrong: a fault, a clock or a second process."""
