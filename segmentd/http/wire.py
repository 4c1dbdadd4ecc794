"""An answer of the lane as it goes over the wire, in the form that Hypercorn gives it.

Owns the header `date` and the order of what belongs to the connection. Never writes to a socket.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Final

from segmentd.http.exchange import Answer


class _Date:
    """The value of the header `date`, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_date: Final = _Date()


def as_bytes(answer: Answer, closes: bool) -> bytes:
    """The answer as Hypercorn writes it."""
    headers = "".join([f"{name}: {value}\r\n" for name, value in answer.headers])
    end = "connection: close\r\n" if closes else ""
    head = (
        f"HTTP/1.1 {answer.status} \r\n{headers}content-length: {len(answer.body)}\r\n{end}date: {_date.now()}\r\n\r\n"
    )
    return head.encode("latin-1") + answer.body
