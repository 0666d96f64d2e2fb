"""``python -m continuum_conformance.cli``: the command where no script of its name is installed."""

import sys

from continuum_conformance.cli import main

sys.exit(main())
