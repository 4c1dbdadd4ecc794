"""Every view passes axe-core's checks: light, dark, and as narrow as a phone. A picture of each is kept."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import OpenPage, shot, sign_in
from tests.serverprocess import ServerProcess

MODES = {"light": ("light", 1280), "dark": ("dark", 1280), "phone": ("light", 360), "wide": ("dark", 1920)}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def filled(module_server: ServerProcess) -> ServerProcess:
    """A server with something of everything to show."""
    now = int(time.time())
    names = ["buyers_90d", "cart_abandoners", "vip_gold", "trial_day_7", "newsletter_openers"]
    with module_server.client(module_server.private_key) as client:
        for name in names[:3]:
            body = {"description": "Bought within ninety days.", "metadata": {"owner": "crm"}}
            client.put(f"/v3/segments/{name}", json=body | {"definition": {"external": {"external_audience_id": name}}})
        for at, name in enumerate(names):
            events = [
                {
                    "type": "passthrough",
                    "action": "qualify" if number % 7 else "disqualify",
                    "identifiers": {"fs_user_id": f"u-{number}"},
                    "data": {"audience_id": name, "ts": now - 4_000 * at - number},
                }
                for number in range(40 + 30 * at)
            ]
            assert client.post("/v3/events", json=events).status_code == 202
            client.post("/v3/graphql", json={"query": "{ audiences { totalCount } }"})
        rows = "\n".join(f"u-{number}" for number in range(150))
        csv = f"fs_user_id\n{rows}\n{'x' * 300}\n"
        client.post("/v3/audiences/vip_gold/imports?force=true", content=csv, headers={"content-type": "text/csv"})
        while client.get("/v3/imports").json()["imports"][0]["finished_at"] is None:
            time.sleep(0.02)
    return module_server


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds, one line each."""
    page.evaluate(axe)
    # What GraphiQL draws itself is its makers'.
    ours = "rules => axe.run({exclude: ['.graphiql-container']}, {runOnly: rules})"
    found: Any = page.evaluate(ours, RULES)
    return [f"{rule['id']}: {json.dumps(rule['nodes'][:3])[:2_000]}" for rule in found["violations"]]


@pytest.fixture(scope="session")
def axe(javascript: Path) -> str:
    return (javascript / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", MODES)
def test_every_view_can_be_perceived_and_used(open_page: OpenPage, filled: ServerProcess, axe: str, mode: str) -> None:
    scheme, width = MODES[mode]
    page = open_page(scheme=scheme, width=width)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    found = {"sign-in": violations(page, axe)}
    shot(page, f"{mode}-sign-in")
    page.get_by_label("Private key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found["sign-in refused"] = violations(page, axe)
    sign_in(page, filled.private_key)
    views = [
        "segments",
        "segments/vip_gold",
        "audiences",
        "customers",
        "imports",
        "report",
        "traffic",
        "health",
        "missing",
        "dialog",
        "refused",
        "delete",
    ]
    for view in views:
        show(page, view)
        found[view] = violations(page, axe)
        shot(page, f"{mode}-{view.replace('/', '-')}")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view} is {wide} px wider than the window"
    assert {view: lines for view, lines in found.items() if lines} == {}


def show(page: Page, view: str) -> None:
    """Go to a view, and wait until it has what it shows."""
    if view == "dialog":
        page.evaluate("location.hash = '#/segments'")
        page.get_by_role("button", name="New segment").click()
    elif view == "missing":
        page.evaluate("location.hash = '#/segments/never_made'")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
    elif view == "refused":
        page.get_by_label("Segment id").fill("vip_gold")
        page.get_by_label("External audience id").fill("other")
        page.get_by_role("button", name="Create segment").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    elif view == "delete":
        page.keyboard.press("Escape")
        page.evaluate("location.hash = '#/segments/vip_gold'")
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
    elif view == "report":
        page.get_by_role("link", name="vip_gold").first.click()
        expect(page.get_by_role("heading", name="Rejected rows")).to_be_visible()
    else:
        page.evaluate(f"location.hash = '#/{view}'")
    if view == "customers":
        page.get_by_label("Value").fill("u-17")
        page.get_by_role("button", name="Look up").click()
    waited = {"segments": "table", "segments/vip_gold": "table", "audiences": "table", "customers": "table"}
    waited |= {"imports": "table", "traffic": "figure", "health": ".card", "dialog": "dialog"}
    expect(page.locator(waited.get(view, "h1")).first).to_be_visible()


@pytest.mark.parametrize("mode", ["dark", "phone"])
def test_the_api_reference_can_be_perceived_and_used(open_page: OpenPage, axe: str, mode: str) -> None:
    scheme, width = MODES[mode]
    page = open_page("/reference", scheme=scheme, width=width)
    expect(page.locator(".operation").first).to_be_visible()
    shot(page, f"{mode}-reference")
    assert violations(page, axe) == []


@pytest.mark.parametrize("mode", ["dark", "phone"])
def test_what_is_ours_around_graphiql_can_be_perceived_and_used(open_page: OpenPage, axe: str, mode: str) -> None:
    scheme, width = MODES[mode]
    page = open_page("/graphiql", scheme=scheme, width=width)
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("status")).to_have_text("This key is not known here.")
    shot(page, f"{mode}-graphiql")
    assert violations(page, axe) == []
