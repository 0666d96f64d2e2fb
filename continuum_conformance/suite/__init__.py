"""The conformance suite: clause tests, the stateful machine, and the check that runs them."""
