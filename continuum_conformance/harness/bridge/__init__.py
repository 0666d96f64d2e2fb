"""Adapters in any language: programs that speak JSON Lines on standard input and output (docs/bridge.md).

`dialogue` is the protocol without I/O, `program` a process that speaks it, `harness` stands in for a harness in
Python, `handle` and `worker` for a handle and for a second process. `serving` is the other direction: an adapter in
Python as such a program.
"""
