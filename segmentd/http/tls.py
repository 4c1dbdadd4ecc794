"""TLS: the certificate, its check before it is used, its renewal while the server runs, and a connection over it.

Owns the SSL context, which Hypercorn's configuration makes. Never looks at what is sent.

Invariants:
1. A certificate is used only after a handshake in memory in which a client believed it: file, key and dates fit.
2. Files that change are read again; what does not pass changes nothing, and the log says why.
3. A handshake takes no longer than a request may.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import structlog
import trio
from hypercorn.config import Config

from segmentd.http.holdings import Holding
from segmentd.http.streams import BoundedStream
from segmentd.settings import ServerSettings

WATCH_SECONDS: Final = 5.0
_FLIGHTS_MAX: Final = 10  # a handshake in memory takes three

_log = structlog.get_logger(__name__)

Stamps = tuple[tuple[int, int] | None, ...]


class CertificateError(Exception):
    """The certificate cannot be used; the message names the setting, the file and the reason."""


class Certificates:
    """The certificate in force; `context` is that of the next connection."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises CertificateError."""
        self._files = (settings.tls_certificate_file, settings.tls_key_file)
        self._seen = self._stamps()
        self._complained: tuple[Stamps, str] | None = None
        self.context = _context(*self._files)

    def refresh_if_changed(self) -> bool:
        """Read the files again if they are others than last time. True if they are in force now."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        try:
            self.context = _context(*self._files)
        except CertificateError as error:
            # It is tried again each time: what kept it from being read may pass without a change of the files.
            if (stamps, str(error)) != self._complained:
                self._complained = stamps, str(error)
                _log.error("certificate not read, the former one stays in force", reason=str(error))
            return False
        self._seen, self._complained = stamps, None
        _log.info("certificate read again", file=self._files[0])
        return True

    async def watch(self) -> None:
        """Keep the certificate fresh until cancelled; connections that are open keep theirs."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            self.refresh_if_changed()

    def _stamps(self) -> Stamps:
        return tuple(_stamp(Path(file)) for file in self._files)


class TlsStream(BoundedStream):
    """A bounded stream over TLS, with what Hypercorn's `TCPServer` asks of one."""

    def __init__(self, stream: trio.SocketStream, seconds_max: float, unread: Holding, context: ssl.SSLContext) -> None:
        # HTTPS clients leave without TLS's goodbye; a message that is cut short is noticed by its framing.
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        super().__init__(tls, stream.socket, seconds_max, unread)
        self._tls = tls
        self.transport_stream = stream

    async def do_handshake(self) -> None:
        """As trio's, but bounded by Hypercorn's own time. Raises BrokenResourceError: the client speaks no TLS."""
        await self._tls.do_handshake()

    def selected_alpn_protocol(self) -> str | None:
        """ "h2", "http/1.1", or None where the client did not say."""
        chosen: str | None = self._tls.selected_alpn_protocol()
        return chosen

    async def send_eof(self) -> None:
        """TLS has no half-closed streams."""

    async def aclose(self) -> None:
        """As trio's, but for no longer than a client may take to read."""
        with trio.move_on_after(self.seconds_max):
            await self._tls.aclose()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _context(certificate: str, key: str) -> ssl.SSLContext:
    """The context that Hypercorn's configuration makes of the files, tried. Raises CertificateError."""
    for setting, file in (("tls_certificate_file", certificate), ("tls_key_file", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise CertificateError(f"[server] {setting} = {file}: {error.strerror}") from error
    config = Config()
    config.certfile, config.keyfile = certificate, key
    config.keyfile_password = ""  # without one OpenSSL would ask for it on the terminal
    try:
        context = config.create_ssl_context()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CertificateError(
            f"[server] tls_certificate_file = {certificate}, tls_key_file = {key}: cannot be used together, are no PEM"
            f" files, or the key has a password: {reason}"
        ) from error
    if context is None:
        raise CertificateError("[server] tls_certificate_file and tls_key_file are both needed")
    try:
        _try(context, certificate)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"[server] tls_certificate_file = {certificate}: {error.verify_message}") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise CertificateError(f"[server] tls_certificate_file = {certificate}: {reason}") from error
    return context


def _try(context: ssl.SSLContext, certificate: str) -> None:
    """A handshake in memory with a client that trusts this certificate and nothing else. Raises ssl.SSLError."""
    believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    believing.check_hostname = False
    # The chain may end before its root, which is in the clients' own stores.
    believing.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    believing.load_verify_locations(certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = believing.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    for _ in range(_FLIGHTS_MAX):
        waiting = [end for end in waiting if not _done(end)]
        if not waiting:
            return
    raise ssl.SSLError("the handshake does not come to its end")


def _done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
