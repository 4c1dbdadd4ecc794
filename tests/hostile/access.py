"""Who may do what: every route, method and GraphQL field, with the right it needs. A new one fails until it is here."""

from segmentd.keyfile import Right

PUBLIC: Right = "public"
PRIVATE: Right = "private"

NEEDS: dict[str, dict[str, Right | None]] = {
    "/v3/events": {"POST": PUBLIC},
    "/v3/graphql": {"GET": PUBLIC, "POST": PUBLIC},
    "/v3/segments": {"GET": PRIVATE},
    "/v3/segments/{segment_id}": {"GET": PRIVATE, "POST": PRIVATE, "PUT": PRIVATE, "DELETE": PRIVATE},
    "/v3/segments/{segment_id}:validate": {"POST": PRIVATE},
    "/v3/segments/{segment_id}/members": {"GET": PRIVATE},
    "/v3/audiences": {"GET": PRIVATE},
    "/v3/audiences/{audience_id}": {"GET": PRIVATE, "DELETE": PRIVATE},
    "/v3/audiences/{audience_id}/deletions/{deletion_id}": {"GET": PRIVATE},
    "/v3/audiences/{audience_id}/imports": {"POST": PRIVATE},
    "/v3/imports": {"GET": PRIVATE},
    "/v3/imports/{import_id}": {"GET": PRIVATE, "DELETE": PRIVATE},
    "/v3/imports/{import_id}/cancel": {"POST": PRIVATE},
    "/v3/compliance/{law}/delete": {"POST": PRIVATE},
    "/v3/compliance/{law}/status/{request_id}": {"GET": PRIVATE},
    "/v3/customers/lookup": {"POST": PRIVATE},
    "/v3/status": {"GET": PRIVATE},
    "/v3/status/traffic": {"GET": PRIVATE},
    "/v3/status/sizes": {"GET": PRIVATE},
    "/healthz": {"GET": None},
    "/readyz": {"GET": None},
    "/metrics": {"GET": None},
    "/openapi.json": {"GET": None},
    "/schema.graphql": {"GET": None},
    # Pages without anything of the service in them; what they show they ask for with a key.
    "/": {"GET": None},
    "/graphiql": {"GET": None},
    "/reference": {"GET": None},
    "/console/{name}": {"GET": None},
}

FIELDS: dict[str, Right] = {
    "Query.customer": PUBLIC,
    "Query.audiences": PUBLIC,
    "Query.audience": PUBLIC,
    "Customer.audiences": PUBLIC,
    "CustomerAudienceConnection.edges": PUBLIC,
    "CustomerAudienceConnection.pageInfo": PUBLIC,
    "CustomerAudienceConnection.totalCount": PUBLIC,
    "CustomerAudienceEdge.cursor": PUBLIC,
    "CustomerAudienceEdge.node": PUBLIC,
    "AudienceConnection.edges": PUBLIC,
    "AudienceConnection.pageInfo": PUBLIC,
    "AudienceConnection.totalCount": PUBLIC,
    "AudienceEdge.cursor": PUBLIC,
    "AudienceEdge.node": PUBLIC,
    **{f"PageInfo.{name}": PUBLIC for name in ("hasNextPage", "hasPreviousPage", "startCursor", "endCursor")},
    **{
        f"{kind}.{name}": PUBLIC
        for kind in ("Audience", "CustomerAudience")
        for name in (*("name", "revision", "description", "is_ready", "size", "metadata", "external_audience_id"),)
    },
    "CustomerAudience.state": PUBLIC,
    "CustomerAudience.qualified_at": PUBLIC,
    "CustomerAudience.updated_at": PUBLIC,
    "Audience.members": PRIVATE,
    "MemberConnection.edges": PRIVATE,
    "MemberConnection.pageInfo": PRIVATE,
    "MemberConnection.totalCount": PRIVATE,
    "MemberEdge.cursor": PRIVATE,
    "MemberEdge.node": PRIVATE,
    **{f"Member.{name}": PRIVATE for name in ("identifier", "value", "qualified_at", "source")},
}
