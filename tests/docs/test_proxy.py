"""The configuration of nginx in docs/proxy.md does what the page says, where nginx is installed."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.docs.documents import DOCS, blocks
from tests.docs.walk import docs_keys, free_port
from tests.programs import find_program
from tests.serverprocess import ServerProcess

NGINX = find_program("nginx")
# Turns a hang into a failure.
START_SECONDS_MAX = 60.0

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")


def configuration(folder: Path, server: ServerProcess, port: int) -> str:
    """The page's configuration, with the addresses and files of this run, in the frame that nginx wants around it."""
    text = (DOCS / "proxy.md").read_text(encoding="utf-8")
    printed = next(block.text for block in blocks(text) if block.language == "nginx")
    for shown, ours in {
        "127.0.0.1:8080": server.url.removeprefix("http://"),
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl": str(folder),
    }.items():
        assert shown in printed
        printed = printed.replace(shown, ours)
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    frame = f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}"
    return f"{frame} http {{ access_log off; {paths}\n{printed} }}"


@pytest.fixture
def published(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a server behind the page's nginx."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (tmp_path / "segmentd.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    (tmp_path / "segmentd.key").write_bytes(certificate.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    with ServerProcess(tmp_path, docs_keys() | {"rates": {"proxies_in_front": 1}}) as server:
        (tmp_path / "nginx.conf").write_text(configuration(tmp_path, server, port), encoding="utf-8")
        command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        with subprocess.Popen(command, stderr=(tmp_path / "nginx.log").open("w")) as nginx:
            headers = {"x-api-key": "dev-public"}
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, headers=headers) as client:
                try:
                    wait_until_up(client, nginx, tmp_path / "nginx.log")
                    yield client
                finally:
                    nginx.terminate()


def wait_until_up(client: httpx.Client, nginx: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        assert nginx.poll() is None, log.read_text(encoding="utf-8")
        try:
            client.get("/")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_events_and_queries_pass_and_nothing_else_does(published: httpx.Client) -> None:
    event = {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": "u"},
        "data": {"audience_id": "a"},
    }
    assert published.post("/v3/events", json=[event] * 500).status_code == 202
    assert published.post("/v3/graphql", json={"query": "{ __typename }"}).json() == {"data": {"__typename": "Query"}}
    for path in ("/", "/metrics", "/readyz", "/v3/segments", "/v3/events/more"):
        answer = published.get(path)
        assert (answer.status_code, "x-request-id" in answer.headers) == (404, False), path
