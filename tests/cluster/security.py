"""What guards a cluster: password, user, TLS; as the servers are told, and as whoever connects needs it."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

from tests.cluster.nodes import Settings
from tests.cluster.resp import Credentials


class Security(NamedTuple):
    """settings: for every server. authority: the file of the certificate to trust, where there is TLS."""

    settings: Settings
    credentials: Credentials
    authority: Path | None


def make(folder: Path, *, tls: bool, user: str | None, password: str | None) -> Security:
    """The security of one cluster; its certificates lie in `folder`. A password has no quotation marks."""
    assert user is None or password is not None, "a user without a password guards nothing"
    folder.mkdir(exist_ok=True)
    settings = _password_settings(user, password)
    if not tls:
        return Security(settings, Credentials(user, password), None)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    trusted, certificate, key = (folder / name for name in ("authority.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(trusted)
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    settings |= {
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(trusted),
        "tls-auth-clients": "no",
        "tls-cluster": "yes",
        "tls-replication": "yes",
    }
    context = ssl.create_default_context(cafile=str(trusted))
    return Security(settings, Credentials(user, password, context), trusted)


def _password_settings(user: str | None, password: str | None) -> dict[str, str | int | list[str]]:
    if password is None:
        return {}
    quoted = f'"{password}"'
    if user is None:
        return {"requirepass": quoted, "masterauth": quoted}
    users = [f'{user} on ">{password}" ~* &* +@all', "default off"]
    return {"user": users, "masteruser": user, "masterauth": quoted}
