"""Data source names: reading what a user gave, and writing URIs that every driver reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from .optional import require
from .server import PostgresUnavailable

_SCHEME = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://")


def uri(
    *, host: str, port: int, user: str, password: str, database: str, options: Mapping[str, str] | None = None
) -> str:
    """Write a URI with everything explicit and quoted. A host that is a socket's directory goes to the query.

    An IPv6 address is put in brackets; an empty password is left out.
    """
    query = dict(options or {})
    userinfo = quote(user, safe="")
    if password:
        userinfo += ":" + quote(password, safe="")
    if host.startswith(("/", "@")):
        query = {"host": host, "port": str(port), **query}
        place = ""
    else:
        place = f"[{host}]:{port}" if ":" in host else f"{quote(host, safe='')}:{port}"
    ending = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"postgresql://{userinfo}@{place}/{quote(database, safe='')}{ending}"


def read(dsn: str) -> dict[str, str]:
    """Read a DSN that a user gave: a URI, also in SQLAlchemy's form with a driver's name, or key=value pairs.

    Returns libpq's keywords that it names. Raises `PostgresUnavailable` when it cannot be read. (The message
    then shows nothing of the DSN: what libpq quotes of a misread one may be a piece of the password.)
    """
    text = dsn.strip()
    if _SCHEME.match(text):
        text = _SCHEME.sub("postgresql://", text)
        authority = re.split(r"[/?#]", text.removeprefix("postgresql://"), maxsplit=1)[0]
        if authority.count("@") > 1:
            raise PostgresUnavailable(
                "the DSN has more than one @ before its host. Write one that belongs to the password as %40."
            )
    require("psycopg", "postgres")
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = conninfo_to_dict(text)
    except Error:
        raise PostgresUnavailable(
            "the DSN cannot be read. Give a URI, postgresql://user:password@host:5432/database with special "
            "characters percent-encoded, or pairs, host=… port=… user=… password='…' dbname=…"
        ) from None
    return {key: str(value) for key, value in found.items() if value is not None}
