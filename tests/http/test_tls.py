"""TLS and HTTP/2 over real sockets, with certificates made here."""

import shutil
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio
import trustme

from segmentd.cli import run
from segmentd.http.tls import CertificateError, Certificates
from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.world import PUBLIC, World, event, settings_with
from tests.serverprocess import ServerDiedError, ServerProcess


class Made(NamedTuple):
    """A certificate's files, and a client's context that trusts its maker."""

    certificate: Path
    key: Path
    trusting: ssl.SSLContext

    @property
    def settings(self) -> ServerSettings:
        return ServerSettings(
            tls_certificate_file=str(self.certificate), tls_key_file=str(self.key), request_read_seconds_max=1
        )


def made(folder: Path, authority: trustme.CA, *, expires: datetime | None = None) -> Made:
    folder.mkdir(exist_ok=True)
    issued = authority.issue_cert(
        "localhost", "127.0.0.1", not_after=expires, not_before=datetime(2020, 1, 1, tzinfo=UTC)
    )
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return Made(certificate, key, trusting)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Made:
    return made(tmp_path / "tls", authority)


@pytest.fixture
async def secure(files: Made, nursery: trio.Nursery) -> AsyncIterator[Served]:
    server = await start(World(settings_with(server=files.settings)), nursery, Certificates(files.settings))
    async with server.client:
        yield server
    server.stop.set()
    await server.stopped.wait()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_events_and_queries_over_tls(secure: Served, files: Made, version: str) -> None:
    client = httpx.AsyncClient(
        base_url=secure.url, verify=files.trusting, http1=version == "HTTP/1.1", http2=version == "HTTP/2", timeout=30
    )
    async with client:
        answers = [await client.post("/v3/events", headers=PUBLIC, json=event()) for _ in range(3)]
        answers += [await client.post("/v3/graphql", headers=PUBLIC, json={"query": "{ __typename }"})]
        answers += [await client.get("/healthz")]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 200, 200]
    assert {answer.http_version for answer in answers} == {version}
    assert secure.url.startswith("https://")


async def test_the_client_chooses_by_alpn_and_gets_http_1_1_without(secure: Served, authority: trustme.CA) -> None:
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        if offered:
            context.set_alpn_protocols(offered)
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", secure.port, ssl_context=context)
        async with stream:
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == chosen


async def test_a_client_that_speaks_no_tls_or_nothing_ends_alone(secure: Served, files: Made) -> None:
    for sent in (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01", b""):
        async with await trio.open_tcp_stream("127.0.0.1", secure.port) as stream:
            await stream.send_all(sent)
            with trio.fail_after(30):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass  # A reset is an end too.
    async with httpx.AsyncClient(base_url=secure.url, verify=files.trusting) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_old_tls_is_refused(secure: Served, files: Made) -> None:
    context = files.trusting
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", secure.port, ssl_context=context)
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    nursery: trio.Nursery, tmp_path: Path, authority: trustme.CA, files: Made
) -> None:
    certificates = Certificates(files.settings)
    server = await start(World(settings_with(server=files.settings)), nursery, certificates)
    renewed = made(tmp_path / "new", trustme.CA())
    assert not certificates.refresh_if_changed()
    files.certificate.write_text("no certificate")
    assert not certificates.refresh_if_changed(), "the former one stays"
    async with httpx.AsyncClient(base_url=server.url, verify=files.trusting) as client:
        assert (await client.get("/healthz")).status_code == 200
    shutil.copyfile(renewed.certificate, files.certificate)
    shutil.copyfile(renewed.key, files.key)
    assert certificates.refresh_if_changed()
    async with httpx.AsyncClient(base_url=server.url, verify=renewed.trusting) as client:
        assert (await client.get("/healthz")).status_code == 200
    server.stop.set()


def broken(files: Made, authority: trustme.CA, what: str) -> str:
    """Break one of the files; returns what the message must say beside the setting and the file."""
    if what == "missing":
        files.key.unlink()
        return "tls_key_file .*key.pem: No such file"
    if what == "no certificate":
        files.certificate.write_text("no certificate")
        return "tls_certificate_file .* are no PEM"
    if what == "another key":
        shutil.copyfile(made(files.key.parent / "other", authority).key, files.key)
        return "cannot be used together.*KEY_VALUES_MISMATCH"
    made(files.key.parent, authority, expires=datetime.now(UTC) - timedelta(days=1))
    return "tls_certificate_file .*certificate has expired"


@pytest.mark.parametrize("what", ["missing", "no certificate", "another key", "expired"])
def test_a_certificate_that_cannot_serve_stops_the_start_with_file_and_reason(
    files: Made, authority: trustme.CA, tmp_path: Path, what: str
) -> None:
    reason = broken(files, authority, what)
    with pytest.raises(CertificateError, match=reason):
        Certificates(files.settings)
    named = {"tls_certificate_file": str(files.certificate), "tls_key_file": str(files.key)}
    with pytest.raises(ServerDiedError, match=r"segmentd: \[server\] tls_") as died:
        ServerProcess(tmp_path, {"server": named}).start()
    assert died.value.returncode == 1


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(files: Made) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(CertificateError, match="the key has a password"):
        Certificates(files.settings)


def test_a_certificate_without_its_key_is_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "segmentd.toml"
    config.write_text('[server]\ntls_certificate_file = "x.pem"\n')
    assert run(["serve", "--config", str(config)]) == 2
    assert "[server] tls_key_file" in capsys.readouterr().err
