"""The reference adapters: journals to run, to measure against, and to copy from.

`in_memory` is the shortest complete journal, `sqlite` keeps one file for several processes, `postgres` is the
one for production. `codec` is the payload format of the latter two. They know nothing of the kit but
``continuum_conformance.contract``.
"""
