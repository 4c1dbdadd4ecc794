"""How a child process answers the server: one JSON line on standard output for each report."""

import os
import sys

import msgspec


def answer(report: msgspec.Struct) -> None:
    """Say it; ends the process quietly where nobody listens any more.

    The server has died then, and the next one begins again with whatever this child was asked for.
    """
    try:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # So that the flush at the end does not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
