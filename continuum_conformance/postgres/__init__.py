"""Getting a PostgreSQL: a given server, an embedded one, one from local programs, or a container.

    with provide() as server:
        print(server.description)
        adapter = connect(server.dsn)

The file to start with is `choose.py`. `server.py` says what every server can do; `given.py`,
`private_server.py` and `container.py` are the three kinds; `pair.py` is two of the second kind, of which one can be
lost. `keeper.py` and `caretaker.py` are processes of
their own that clean up behind us, and `lifeline.py` is our end of the line to them.
"""

from continuum_conformance.model import mask

from .choose import CHOICES, programs, provide
from .pair import Pair
from .server import PostgresServer, PostgresUnavailable

__all__ = ["CHOICES", "Pair", "PostgresServer", "PostgresUnavailable", "mask", "programs", "provide"]
