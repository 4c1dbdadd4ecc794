"""What is traced beside requests: queries, commits, imports. Built only where traces are on.

Owns when these spans begin and end. Never changes what it watches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypedDict, Unpack

import msgspec
import trio

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.importjob import ImportJob
from segmentd.graphql.context import MemberReader, MembershipReader, Right, SegmentReader
from segmentd.graphql.engine import GraphQLAnswer, GraphQLEngine, GraphQLRequest
from segmentd.graphql.gathering import AwaitedReads
from segmentd.http.slowqueries import described
from segmentd.runtime.write import Write
from segmentd.settings import GraphQLSettings, TracesSettings
from segmentd.telemetry import Telemetry
from segmentd.tracing import Span, Tracing, open_tracing

_EXECUTE: Final = "graphql.execute"


class _Members(TypedDict, total=False):
    """See GraphQLEngine."""

    members: MemberReader | None
    members_page_max: int


class TracedEngine(GraphQLEngine):
    """An engine whose executions are parts of their requests' traces."""

    def __init__(
        self,
        tracing: Tracing,
        store: MembershipReader | None,
        catalog: SegmentReader,
        schema: IdentifierSchema,
        settings: GraphQLSettings,
        **members: Unpack[_Members],
    ) -> None:
        super().__init__(store, catalog, schema, settings, **members)
        self._tracing = tracing

    def execute(self, request: GraphQLRequest, *, right: Right) -> GraphQLAnswer:
        """See GraphQLEngine."""
        span = self._tracing.part(_EXECUTE)
        planned = self.answered_by_plans
        answer = super().execute(request, right=right)
        if span is not None:
            self._end(span, request, answer, planned)
        return answer

    async def execute_awaited(self, request: GraphQLRequest, *, right: Right, reads: AwaitedReads) -> GraphQLAnswer:
        """See GraphQLEngine."""
        span = self._tracing.part(_EXECUTE)
        if span is None:
            return await super().execute_awaited(request, right=right, reads=reads)
        try:
            answer = await super().execute_awaited(request, right=right, reads=reads)
        except BaseException:
            span.end({}, failed=True)
            raise
        self._end(span, request, answer, self.answered_by_plans - answer.planned)
        return answer

    def _end(self, span: Span, request: GraphQLRequest, answer: GraphQLAnswer, planned: int) -> None:
        """planned: what plans had answered before."""
        refused = answer.kind == "request_error"
        told = described(request, planned=None if refused else self.answered_by_plans > planned)
        span.end(
            {
                "segmentd.graphql.answered_by": told.answered_by,
                # As in the log of slow queries; the text itself has pasted identifiers in it.
                "segmentd.graphql.document": told.document or "",
                "segmentd.graphql.document_bytes": told.document_bytes,
                "segmentd.graphql.bytes_out": len(answer.encoded),
            },
            failed=answer.kind == "field_errors",
        )


class CommitSpans:
    """A span for each traced request that waits for its commit, and one for a commit that any of them waits for.

    They are linked both ways, since a commit belongs to all of its requests. Implements `CommitWatch`.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._waiting: dict[Write, Span] = {}
        self._commits: dict[int, Span] = {}
        """By the identity of the group, which lives as long as its commit."""

    def queued(self, write: Write) -> None:
        """See CommitWatch."""
        span = self._tracing.part("wait for commit")
        if span is not None:
            self._waiting[write] = span

    def begun(self, group: Sequence[Write]) -> None:
        """See CommitWatch."""
        waiting = [self._waiting[write] for write in group if write in self._waiting] if self._waiting else []
        if not waiting:
            return
        changes = sum(len(write.changes) + len(write.imported) for write in group)
        attributes = {"segmentd.commit.requests": len(group), "segmentd.commit.changes": changes}
        commit = self._commits[id(group)] = self._tracing.start("commit", None, attributes)
        for span in waiting:
            span.link(commit.context)
            commit.link(span.context)

    def ended(self, group: Sequence[Write], *, failed: bool) -> None:
        """See CommitWatch."""
        commit = self._commits.pop(id(group), None)
        if commit is not None:
            commit.end({}, failed=failed)
        if self._waiting:
            for write in group:
                span = self._waiting.pop(write, None)
                if span is not None:
                    span.end({"segmentd.changes": len(write.changes)}, failed=failed)


class _Import(msgspec.Struct):
    """An import that is being carried out. phase: which one its `part` is of."""

    whole: Span
    phase: str
    part: Span


class ImportSpans:
    """A trace for each import, with a span for each of its phases."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._open: dict[str, _Import] = {}

    def saved(self, job: ImportJob) -> None:
        """The job's state is being made durable, as it is whenever it has changed."""
        found = self._open.get(job.id)
        if job.is_ended:
            if found is not None:
                del self._open[job.id]
                found.part.end({})
                found.whole.end(_outcome(job), failed=job.state == "failed")
        elif job.state == "running" and found is None:
            named = {"segmentd.import.id": job.id, "segmentd.audience": job.audience_id}
            whole = self._tracing.start("import", None, named)
            self._open[job.id] = _Import(whole, job.phase, self._phase(whole, job.phase))
        elif found is not None and found.phase != job.phase:
            found.part.end({})
            found.phase, found.part = job.phase, self._phase(found.whole, job.phase)

    def _phase(self, whole: Span, phase: str) -> Span:
        return self._tracing.start(f"import {phase}", whole.context, {})


def _outcome(job: ImportJob) -> dict[str, str | int]:
    counts = {"rows": job.rows, "rejected": job.rejected, "qualified": job.qualified, "disqualified": job.disqualified}
    return {"segmentd.import.state": job.state, **{f"segmentd.import.{name}": count for name, count in counts.items()}}


class Traces(NamedTuple):
    """Everything that a process wires up; nothing but Nones where traces are off."""

    tracing: Tracing | None = None
    commits: CommitSpans | None = None
    imports: Callable[[ImportJob], None] | None = None

    def engine(
        self,
        store: MembershipReader | None,
        catalog: SegmentReader,
        schema: IdentifierSchema,
        settings: GraphQLSettings,
        **members: Unpack[_Members],
    ) -> GraphQLEngine:
        """An engine, traced or not."""
        if self.tracing is None:
            return GraphQLEngine(store, catalog, schema, settings, **members)
        return TracedEngine(self.tracing, store, catalog, schema, settings, **members)

    async def aclose(self) -> None:
        """Export what is left, for a bounded time."""
        if self.tracing is not None:
            await trio.to_thread.run_sync(self.tracing.close)


def open_traces(settings: TracesSettings, process: str, telemetry: Telemetry) -> Traces:
    """process: `owner`, or the follower's name. Raises TracesUnusableError."""
    tracing = open_tracing(settings, process)
    if tracing is None:
        return Traces()
    telemetry.watch_traces(tracing.counts, lambda: tracing.left_out)
    return Traces(tracing, CommitSpans(tracing), ImportSpans(tracing).saved)
