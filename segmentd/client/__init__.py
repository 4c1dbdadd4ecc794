"""Clients for a segmentd server: `Client` for plain programs, `TrioClient` for Trio.

Owns nothing of the server and imports nothing of it. Events go out in order and in batches; a request that gets no
answer, or "later", is repeated as it is, which the server makes safe; the report tells of every event whether it was
acknowledged.

    from segmentd.client import Client

    with Client("http://127.0.0.1:8080", "dev-public") as client:
        report = client.send(events)
"""

from segmentd.client.blocking import Client
from segmentd.client.exchange import Post, Wait
from segmentd.client.report import ClientError, GaveUp, InvalidEvents, Line, Options, Problem, Refused, Report
from segmentd.client.trioclient import TrioClient

__all__ = [
    "Client",
    "ClientError",
    "GaveUp",
    "InvalidEvents",
    "Line",
    "Options",
    "Post",
    "Problem",
    "Refused",
    "Report",
    "TrioClient",
    "Wait",
]
