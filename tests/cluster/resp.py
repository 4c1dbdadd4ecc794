"""The protocol of Valkey and Redis (RESP2) over one blocking socket: what the tests need to steer servers, no more.

Owes nothing to segmentd's own client of a cluster, so that a mistake there cannot hide here as well. Never follows a
redirection and never retries; every wait is bounded. One connection belongs to one thread.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

CONNECT_SECONDS_MAX = 2.0
ANSWER_SECONDS_MAX = 20.0
"""Turn a hang into a failure; on loopback a healthy server needs a small fraction of them."""

Word = str | bytes | int | float
Reply = bytes | int | None | list["Reply"]


class ReplyError(Exception):
    """The server answered with an error, such as `MOVED 12 127.0.0.1:10301`; `kind` is its first word."""

    @property
    def kind(self) -> str:
        return str(self).partition(" ")[0]


class Credentials(NamedTuple):
    """What a server asks of whoever connects."""

    user: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


class Connection:
    """One connection. A broken or late one raises OSError, and is of no more use."""

    def __init__(self, plain: socket.socket, credentials: Credentials) -> None:
        plain.settimeout(ANSWER_SECONDS_MAX)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = credentials.tls
        self._socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self._stream: IO[bytes] = self._socket.makefile("rb")
        if credentials.password is not None:
            self.call("AUTH", *filter(None, [credentials.user]), credentials.password)

    def call(self, *words: Word) -> Reply:
        """Send one command and return its reply; raises ReplyError."""
        (reply,) = self.pipeline([words])
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Reply | ReplyError]:
        """Send all of `commands` in one go; their replies in order, errors among them."""
        self._socket.sendall(b"".join(map(_encode, commands)))
        return [self._read() for _ in commands]

    def text(self, *words: Word) -> str:
        """The reply of a command that answers with a text."""
        reply = self.call(*words)
        assert isinstance(reply, bytes), f"{words} answered {reply!r}"
        return reply.decode()

    def number(self, *words: Word) -> int:
        """The reply of a command that answers with an integer."""
        reply = self.call(*words)
        assert isinstance(reply, int), f"{words} answered {reply!r}"
        return reply

    def texts(self, *words: Word) -> list[str]:
        """The reply of a command that answers with a flat list of texts."""
        reply = self.call(*words)
        assert isinstance(reply, list), f"{words} answered {reply!r}"
        return [each.decode() for each in reply if isinstance(each, bytes)]

    def info(self, section: str) -> dict[str, str]:
        """`INFO section`, by name."""
        lines = self.text("INFO", section).splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _read(self) -> Reply | ReplyError:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection in the middle of a reply")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest
            case b"-":
                return ReplyError(rest.decode(errors="replace"))
            case b":":
                return int(rest)
            case b"$":
                return None if int(rest) < 0 else self._read_exactly(int(rest) + 2)[:-2]
            case b"*":
                return None if int(rest) < 0 else [self._read_inner() for _ in range(int(rest))]
        raise AssertionError(f"no reply of this protocol: {line!r}")

    def _read_inner(self) -> Reply:
        reply = self._read()
        if isinstance(reply, ReplyError):
            # Inside a list only EXEC answers so, and whoever uses it wants to know.
            raise reply
        return reply

    def _read_exactly(self, count: int) -> bytes:
        read = self._stream.read(count)
        if len(read) < count:
            raise ConnectionResetError("the server closed the connection in the middle of a reply")
        return read


@contextmanager
def connected(port: int, credentials: Credentials) -> Iterator[Connection]:
    """A connection to a server on the loopback address, closed in the end.

    Raises OSError: nobody listens there, or a TLS handshake failed; ReplyError: the password is wrong.
    """
    with socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS_MAX) as plain:
        connection = Connection(plain, credentials)
        try:
            yield connection
        finally:
            connection.close()


def _encode(words: Sequence[Word]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
