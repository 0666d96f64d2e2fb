"""Adapters that are wrong only when a connection, a client or a server dies, and right ones beside them."""
