"""How fast an adapter is: pace, growth, bytes, and how near it comes to what its server can do.

The file to start with is `run.py`, the whole measurement. `turns.py` lets an adapter's clients make calls at once
and times each; `work.py` says what the calls of each operation are; `pace.py`, `growth.py`, `size.py` and
`limits.py` are the four parts; `figures.py` is what comes out. Nothing here judges: a figure holds for one machine
in one hour, so only ratios of neighbours in time are worth comparing.
"""
