"""A bucket, S3 or compatible, as a source: objects below one prefix are imported and moved below another.

Where an object is, is the whole state: below `s3_prefix` it waits (below `<s3_prefix>force/` to be forced), below
`s3_done_prefix` or `s3_failed_prefix` it is through, with `<key>.report.json` beside it. It is copied first and deleted
then, so a crash in between repeats an import that changes nothing. An object that the store will not give goes to
`s3_failed_prefix` as well; one that cannot be had just now, or cannot be moved, stays, is told of once, and holds up no
other. The client is boto3 (the extra `segmentd[s3]`); its calls block, so they run in worker threads.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import trio

from segmentd.runtime.importsources import FORCED, Delivery, Found, Importing, NotNowError, chunks_of
from segmentd.runtime.threads import in_thread
from segmentd.settings import ImportsSettings


class BucketUnusableError(Exception):
    """boto3 is not installed."""


def s3_client(settings: ImportsSettings) -> Any:
    """A client; credentials and region are found where AWS's tools find them. Raises BucketUnusableError."""
    try:
        import boto3  # noqa: PLC0415  # an extra, and slow to import
    except ImportError:
        raise BucketUnusableError("[imports] s3_bucket needs boto3: pip install 'segmentd[s3]'") from None
    return boto3.client("s3", endpoint_url=settings.s3_endpoint or None)


class WatchedBucket:
    """An actor: `run` as its task."""

    def __init__(self, client: Any, settings: ImportsSettings, importing: Importing) -> None:
        self._client = client
        self._settings = settings
        self._bucket = settings.s3_bucket
        self._importing = importing

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                entries = await in_thread(lambda: list(self._waiting()))
            # boto3's exceptions have no common base but this; a bucket out of reach must not end the server.
            except Exception as error:  # noqa: BLE001
                self._importing.failed("the bucket cannot be used; trying again", error, f"s3:{self._bucket}")
                entries = []
            else:
                self._importing.works(f"s3:{self._bucket}")
            for entry in entries:
                await self._import(entry)
            await trio.sleep(self._settings.s3_poll_seconds)

    def _waiting(self) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._settings.s3_prefix
        )
        for page in pages:
            yield from (entry for entry in page.get("Contents", ()) if not entry["Key"].endswith("/"))

    async def _import(self, entry: dict[str, Any]) -> None:
        key, tag = entry["Key"], entry["ETag"]
        name = key.rpartition("/")[2]
        changed_ms = int(entry["LastModified"].timestamp() * 1000)
        force = key.removeprefix(self._settings.s3_prefix).startswith(f"{FORCED}/")
        found = Found(name, f"s3:{self._bucket}/{key}@{changed_ms}-{tag.strip(chr(34))}", changed_ms, force=force)
        await self._importing.handle(found, partial(self._opened, key, tag), partial(self._put_away, key, tag))

    async def _opened(self, key: str, tag: str) -> AsyncIterator[bytes]:
        get: Callable[[], Any] = partial(self._client.get_object, Bucket=self._bucket, Key=key, IfMatch=tag)
        try:
            body = (await in_thread(get))["Body"]
            async for chunk in chunks_of(body.read, body.close):
                yield chunk
        except Exception as error:
            if _is_refused(error):
                raise
            raise NotNowError(str(error)) from error

    def _put_away(self, key: str, tag: str, delivery: Delivery) -> None:
        settings, client = self._settings, self._client
        prefix = settings.s3_done_prefix if delivery.is_done else settings.s3_failed_prefix
        target = prefix + key.removeprefix(settings.s3_prefix)
        client.put_object(
            Bucket=self._bucket,
            Key=f"{target}.report.json",
            Body=delivery.report(),
            ContentType="application/json",
        )
        client.copy({"Bucket": self._bucket, "Key": key}, self._bucket, target, ExtraArgs={"CopySourceIfMatch": tag})
        if client.head_object(Bucket=self._bucket, Key=key)["ETag"] == tag:
            client.delete_object(Bucket=self._bucket, Key=key)


def _is_refused(error: Exception) -> bool:
    """Whether the store says that it will not give this object, rather than that it cannot now, or has another one."""
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(answer, dict) else 0
    return status in {400, 403}
