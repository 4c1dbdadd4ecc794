"""GraphiQL and the API reference work without any address outside."""

import json

from playwright.sync_api import expect

from tests.console.conftest import OpenPage, shot
from tests.serverprocess import ServerProcess


def test_graphiql_runs_its_example_with_the_key_of_the_page_and_keeps_nothing(
    open_page: OpenPage, server: ServerProcess
) -> None:
    page = open_page("/graphiql")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("status")).to_have_text("This key is not known here.")
    page.get_by_label("Key", exact=True).fill(server.public_key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("status")).to_have_text("The key is in use.")
    page.get_by_role("button", name="Execute query").click()
    result = page.get_by_label("Result Window")
    expect(result).to_contain_text('"edges"')
    page.get_by_role("tab", name="Segments").click()
    page.get_by_role("button", name="Execute query").click()
    expect(result).to_contain_text('"totalCount"')
    shot(page, "graphiql")
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_graphiql_shows_the_schema_and_its_settings(open_page: OpenPage, server: ServerProcess) -> None:
    page = open_page("/graphiql", scheme="dark")
    page.get_by_label("Key", exact=True).fill(server.public_key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("button", name="Show Documentation Explorer").click()
    page.get_by_role("link", name="Query").first.click()
    expect(page.get_by_text("What can be read.")).to_be_visible()
    shot(page, "graphiql-documentation")


def test_the_reference_shows_every_operation_of_the_document(open_page: OpenPage, server: ServerProcess) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    wanted = {
        operation["operationId"]
        for methods in paths.values()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "delete"}
    }
    page = open_page("/reference")
    expect(page.locator(".operation")).to_have_count(len(wanted))
    assert set(page.evaluate("[...document.querySelectorAll('.operation')].map(one => one.id)")) == wanted
    page.get_by_role("navigation", name="Operations").get_by_role("link", name="put /v3/segments").click()
    operation = page.locator("#putSegment")
    expect(operation).to_be_in_viewport()
    expect(operation).to_contain_text("Create or update a segment, durably")
    expect(operation.locator("pre")).to_contain_text("curl -X PUT")
    assert json.loads(page.evaluate("JSON.stringify(Object.keys(localStorage))")) == []
