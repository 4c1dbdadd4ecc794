"""Blocks of ports that no other cluster of this machine uses, whatever started it.

A block is claimed by an abstract Unix socket that is named after it: the kernel gives a name to one process at a time,
and takes it back when that process dies.
"""

import random
import socket
from typing import Final, Self

# Below what the kernel gives to outgoing connections (from 32768 on) and what other tests take for single servers.
FIRST: Final = 10_240
BLOCK_PORTS: Final = 64
BLOCKS: Final = 150


class PortBlock:
    """BLOCK_PORTS neighbouring ports of the loopback address, this process's own until `close`."""

    def __init__(self, first: int, claim: socket.socket) -> None:
        self.ports = range(first, first + BLOCK_PORTS)
        self._claim = claim

    @classmethod
    def claim(cls) -> Self:
        """A block that nobody has claimed and nobody listens in; raises OSError if there is none."""
        for number in random.SystemRandom().sample(range(BLOCKS), BLOCKS):
            first = FIRST + number * BLOCK_PORTS
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0segmentd-tests-ports-{first}")
            except OSError:
                claim.close()
                continue
            if all(map(_is_free, range(first, first + BLOCK_PORTS))):
                return cls(first, claim)
            claim.close()
        raise OSError("every block of ports is taken")

    def close(self) -> None:
        self._claim.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
