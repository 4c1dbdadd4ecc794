"""The example in the package's own documentation does what it says."""

import re
import textwrap
from typing import Any

import segmentd.client
from segmentd.client import Client, TrioClient
from tests.client.conftest import Serve, event, members

ADDRESS = "http://127.0.0.1:8080"


def test_the_example_of_the_package_runs_as_printed(serve: Serve) -> None:
    server = serve()
    documentation = segmentd.client.__doc__
    assert documentation is not None
    example = textwrap.dedent("\n".join(re.findall(r"^    .*$|^$", documentation, re.MULTILINE)))
    assert "client.send(events)" in example
    names: dict[str, Any] = {"events": [event(number) for number in range(3)]}
    exec(example.replace(ADDRESS, server.url).replace("dev-public", server.public_key), names)  # noqa: S102
    assert names["report"].acknowledged == 3
    assert members(server) == {"u0", "u1", "u2"}


def test_everything_public_is_documented() -> None:
    for name in segmentd.client.__all__:
        assert getattr(segmentd.client, name).__doc__, name
    for kind in (Client, TrioClient):
        methods = [method for name, method in vars(kind).items() if callable(method) and not name.startswith("_")]
        assert methods
        assert all(method.__doc__ for method in [*methods, kind.__init__])


def test_both_clients_offer_the_same() -> None:
    public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, TrioClient)]
    assert public[0] == public[1] == {"send", "send_lines", "segments_of", "close"}
