"""`segmentd keys`: create, list and revoke API keys, in the data folder or in the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from segmentd.commands.options import Failure, configured, quiet_log, settings_of

if TYPE_CHECKING:
    from segmentd.keyfile import KeyStore, StoredKey
    from segmentd.settings import KeySettings, Settings

_RATE: Final = click.FloatRange(min=0, max=10_000_000)


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    A "public" key sends events and reads GraphQL: it is meant for SDKs and web pages. A "private" key may do
    everything. Keys are in keys.json in the data folder, or in the cluster, as hashes; a running server sees a change
    within a second.

    \b
    To rotate a key: create the new one, move the clients over, revoke the old one.
    """


@keys.command("create")
@configured
@click.option("--right", type=click.Choice(["public", "private"]), required=True, help="What the key may do.")
@click.option("--id", "key_id", metavar="ID", help="Name of the key, to list and revoke it by. Without it: at random.")
@click.option(
    "--requests-per-second", metavar="N", type=_RATE, help="How much it may ask; beyond, 429. Without it: [rates]."
)
@click.option(
    "--events-per-second", metavar="N", type=_RATE, help="How much it may send; beyond, 429. Without it: [rates]."
)
def create_key(
    config: Path | None,
    data: str | None,
    right: Literal["public", "private"],
    key_id: str | None,
    requests_per_second: float | None,
    events_per_second: float | None,
) -> None:
    """Create a key and print its secret.

    The secret is shown this once and stored nowhere. A rate of 0 means no limit.

    \b
    Examples:
      segmentd keys create --config segmentd.toml --right public --id shop --requests-per-second 200
      SECRET=$(segmentd keys create --config segmentd.toml --right private --id nightly-import)
    """
    from segmentd.keyfile import KeyStoreError, Rates

    settings = settings_of(config, data)
    if key_id in settings.keys:
        raise Failure(f"the key {key_id!r} is in the configuration already")
    store = _store(settings)
    try:
        created, secret = store.create(right, key_id, Rates(requests_per_second, events_per_second))
    except KeyStoreError as error:
        raise Failure(str(error)) from None
    click.echo(f"created the {right} key {created} in {store.place}; its secret is not shown again:", err=True)
    click.echo(secret)


@keys.command("list")
@configured
def list_keys(config: Path | None, data: str | None) -> None:
    """List the keys.

    Id, right, requests and events per second ("-": those of [rates]), when it was created, and where it is: in the
    configuration or in the data folder.

    \b
    Example:
      segmentd keys list --config segmentd.toml
    """
    from segmentd.keyfile import KeyStoreError

    settings = settings_of(config, data)
    store = _store(settings)
    try:
        stored = store.list_keys()
    except KeyStoreError as error:
        raise Failure(str(error)) from None
    rows = [("ID", "RIGHT", "REQUESTS/S", "EVENTS/S", "CREATED", "WHERE")]
    rows += [(key_id, key.right, *_rates(key), "-", "configuration") for key_id, key in sorted(settings.keys.items())]
    rows += [(key_id, key.right, *_rates(key), key.created, store.place) for key_id, key in stored]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _rates(key: KeySettings | StoredKey) -> tuple[str, str]:
    shown = ("-" if rate is None else f"{rate:g}" for rate in (key.requests_per_second, key.events_per_second))
    return next(shown), next(shown)


@keys.command("revoke")
@configured
@click.argument("key_id", metavar="ID")
def revoke_key(config: Path | None, data: str | None, key_id: str) -> None:
    """Revoke the key ID.

    A running server refuses it within a second.

    \b
    Example:
      segmentd keys revoke --config segmentd.toml shop
    """
    from segmentd.keyfile import KeyStoreError

    settings = settings_of(config, data)
    if key_id in settings.keys:
        raise Failure(f"the key {key_id!r} is in the configuration: remove [keys.{key_id}] there")
    try:
        _store(settings).revoke(key_id)
    except KeyStoreError as error:
        raise Failure(str(error)) from None
    click.echo(f"revoked the key {key_id}", err=True)


def _store(settings: Settings) -> KeyStore:
    """Where the keys of this configuration are made."""
    from segmentd.keyfile import KeyFile, path_in

    if settings.store.is_cluster:
        from segmentd.cluster.keys import ClusterKeyStore

        quiet_log()
        return ClusterKeyStore(settings)
    return KeyFile(path_in(Path(settings.storage.path)))
