"""The clause tests, one module per chapter of the contract. Importing this package registers them all."""

from continuum_conformance.suite.chapters import (
    app,
    atm,
    cap,
    clk,
    dur,
    fen,
    fin,
    iso,
    lea,
    lod,
    run,
    snp,
    trm,
)

__all__ = ["app", "atm", "cap", "clk", "dur", "fen", "fin", "iso", "lea", "lod", "run", "snp", "trm"]
