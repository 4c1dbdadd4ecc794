"""Ask a restarted server, as a client, whether everything that it promised is there and nothing is half there."""

from collections.abc import Iterable, Iterator, Sequence

import httpx

from tests.crash.model import SEGMENTS, Model, Request, SegmentModel
from tests.serverprocess import ServerProcess

CUSTOMERS_MAX = 50
"""Aliases in one document; the default limit is 64."""


def inspect(server: ServerProcess, model: Model, segment: SegmentModel, touched: Iterable[str]) -> None:
    """Settle the requests whose fate was unknown, then compare with `model`.

    touched: the identifiers to ask for one by one, besides those of requests that were not acknowledged; the sizes
    cover all the others.
    """
    with server.client(server.private_key) as client:
        open_requests = model.unknown + model.refused
        found = segments_of(client, {each for request in open_requests for each in request.touched} | set(touched))
        _settle(model, found)
        wrong = {
            key: (model.segments_of(key), names) for key, names in found.items() if model.segments_of(key) != names
        }
        assert not wrong, f"{len(wrong)} of {len(found)} identifiers are wrong (expected, found): {_few(wrong)}"
        sizes = {name: _size(client, name) for name in SEGMENTS}
        assert sizes == {name: model.size(name) for name in SEGMENTS}
        _inspect_segment(client, segment)


def _settle(model: Model, found: dict[str, list[str]]) -> None:
    for request in model.refused:
        applied = _applied(request, found)
        assert not applied, f"refused, yet these are there: {applied}"
    for request in model.unknown:
        applied = _applied(request, found)
        assert applied in ([], request.markers), f"half applied: {applied} of {request.markers}"
        if applied:
            model.apply(request)
    model.unknown.clear()
    model.refused.clear()


def _applied(request: Request, found: dict[str, list[str]]) -> list[str]:
    return [marker for marker in request.markers if found[marker]]


def segments_of(client: httpx.Client, identifiers: Iterable[str]) -> dict[str, list[str]]:
    """identifier → the segments of the model in which it is qualified."""
    asked = sorted(identifiers)
    groups = [asked[start : start + CUSTOMERS_MAX] for start in range(0, len(asked), CUSTOMERS_MAX)]
    return {key: names for group in groups for key, names in zip(group, _ask(client, group), strict=True)}


def _ask(client: httpx.Client, identifiers: Sequence[str]) -> Iterator[list[str]]:
    variables = {f"v{number}": identifier for number, identifier in enumerate(identifiers)}
    declared = ", ".join(f"${name}: String" for name in variables)
    fields = " ".join(f"{name}: customer(fs_user_id: ${name}) {{ ...names }}" for name in variables)
    fragment = "fragment names on Customer { audiences(subset: $subset) { edges { node { name } } } }"
    query = f"query({declared}, $subset: [String]) {{ {fields} }} {fragment}"
    answer = client.post("/v3/graphql", json={"query": query, "variables": {**variables, "subset": SEGMENTS}})
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert "errors" not in body, answer.text
    for name in variables:
        yield [edge["node"]["name"] for edge in body["data"][name]["audiences"]["edges"]]


def _size(client: httpx.Client, segment: str) -> int:
    body = {"query": "query($name: String!) { audience(name: $name) { size } }", "variables": {"name": segment}}
    answer = client.post("/v3/graphql", json=body)
    audience = answer.json()["data"]["audience"]
    assert audience is not None, f"the segment {segment} is gone: {answer.text}"
    size: int = audience["size"]
    return size


def _inspect_segment(client: httpx.Client, segment: SegmentModel) -> None:
    answer = client.get(f"/v3/segments/{segment.segment_id}")
    assert answer.status_code in {200, 404}, answer.text
    found = answer.json() if answer.status_code == 200 else None
    audience = found["definition"]["external"]["external_audience_id"] if found else None
    assert audience in segment.possible, (
        f"{segment.segment_id} points at {audience}, expected one of {segment.possible}"
    )
    segment.settle(audience, found["revision"] if found else 0)


def _few(wrong: dict[str, tuple[list[str], list[str]]]) -> dict[str, tuple[list[str], list[str]]]:
    return dict(list(wrong.items())[:10])
