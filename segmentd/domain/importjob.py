"""An import job as everybody sees it: what was asked for, how far it is, what it did. A plain value, kept on disk."""

from typing import Literal

import msgspec

State = Literal["queued", "running", "completed", "failed", "cancelled"]
Phase = Literal["checking", "qualifying", "raising", "sweeping"]
Form = Literal["csv", "ndjson", "auto"]
"""How a file is written; `auto`: its first character tells."""


class Reject(msgspec.Struct, frozen=True):
    """A row that does not count. line: from 1."""

    line: int
    reason: str


class ImportJob(msgspec.Struct, kw_only=True):
    """One import, as job.json has it. Times are in ms since the epoch."""

    id: str
    audience_id: str
    as_of_ms: int
    identifier: str
    kind_number: int
    source: str
    """"http", or what a folder or a bucket names the file by."""
    dry_run: bool = False
    force: bool = False
    max_shrink: float
    state: State = "queued"
    phase: Phase = "checking"
    rows: int = 0
    distinct: int = 0
    rejected: int = 0
    rejects: list[Reject] = []
    qualified: int = 0
    disqualified: int = 0
    unchanged: int = 0
    reason: str | None = None
    progress: float = 0.0
    audience_number: int | None = None
    """The audience's number in the store since `qualifying` began; another one means that it was deleted meanwhile."""
    cursor: int = 0
    """Bytes of `staged` that are done with, while qualifying."""
    sweep: str | None = None
    """Name of the file with the members to disqualify, once it is on disk."""
    to_sweep: int = 0
    created_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in {"completed", "failed", "cancelled"}
