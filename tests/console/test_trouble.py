"""What the console shows of a server that answers no more, later, or to nobody with this key; and of its followers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import shot, written
from tests.serverprocess import ServerProcess

LONG = "langer-name-" * 10
RIGHT_TO_LEFT = "العملاء الذين اشتروا خلال تسعين يوما (90)"


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a follower, where an import takes long: each row has a commit of its own."""
    settings: dict[str, dict[str, float]] = {
        "console": {"traffic_seconds": 0.1},
        "server": {"followers": 1},
        "imports": {"slice_changes": 1},
    }
    with ServerProcess(tmp_path_factory.mktemp("server"), settings) as server:
        yield server
        server.terminate()


def test_followers_have_a_card_that_says_how_many_are_ready(console: Page) -> None:
    console.get_by_role("link", name="Health").click()
    expect(console.get_by_role("heading", name="Followers well")).to_be_visible()
    card = console.locator(".card").filter(has_text="Processes that answer queries beside this one.")
    expect(card.locator("dl.facts")).to_have_text("Ready1Wanted1")
    shot(console, "followers")


def test_a_server_that_cannot_be_reached_is_said_until_it_can(console: Page) -> None:
    console.get_by_role("link", name="Traffic").click()
    expect(console.get_by_role("heading", name="Query latency")).to_be_visible()
    console.context.set_offline(True)
    expect(console.get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(console.get_by_role("heading", name="Query latency")).to_be_visible()
    shot(console, "unreachable")
    console.get_by_role("link", name="Audiences").click()
    expect(console.get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(console.get_by_role("button", name="Try again")).to_be_visible()
    console.context.set_offline(False)
    console.get_by_role("button", name="Try again").click()
    expect(console.get_by_text("Every audience has a segment.")).to_be_visible()
    expect(console.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("status", [429, 503])
def test_an_answer_for_later_says_when(console: Page, status: int) -> None:
    later = {"status": status, "headers": {"retry-after": "7"}, "json": {"message": "Not now."}}
    console.route("**/v3/customers/lookup", lambda route: route.fulfill(**later))
    console.get_by_role("link", name="Customers").click()
    console.get_by_label("Value").fill("who")
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_role("alert")).to_have_text("Not now. Try again in 7 s.")


def test_a_key_that_is_no_longer_in_force_leads_to_the_sign_in(console: Page) -> None:
    gone = {"status": 403, "json": {"message": "Forbidden"}}
    console.route("**/v3/status/traffic*", lambda route: route.fulfill(**gone))
    console.get_by_role("link", name="Traffic").click()
    expect(console.get_by_role("alert")).to_contain_text("The key is no longer in force.")
    expect(console.get_by_label("Private key")).to_be_focused()


def test_long_and_right_to_left_texts_leave_the_page_as_wide_as_the_window(
    console: Page, server: ServerProcess
) -> None:
    body = {"description": f"{RIGHT_TO_LEFT} {LONG * 4}", "metadata": {LONG: RIGHT_TO_LEFT}}
    definition = {"definition": {"external": {"external_audience_id": LONG}}}
    with server.client(server.private_key) as client:
        assert client.put(f"/v3/segments/{'a_name_' * 9}", json=body | definition).status_code == 201
    for width in (360, 820, 1280):
        console.set_viewport_size({"width": width, "height": 860})
        for view in ("#/segments", f"#/segments/{'a_name_' * 9}"):
            console.evaluate("view => { location.hash = view }", view)
            expect(console.get_by_text(RIGHT_TO_LEFT).first).to_be_visible()
            shot(console, f"long-{width}-{'list' if view == '#/segments' else 'one'}")
            root, nav = "document.documentElement", "document.querySelector('nav')"
            # The list of links reaches a little over its place on a phone, where nothing is beside it.
            for part, most in ((root, 0), (nav, 8)):
                wider = console.evaluate(f"{part}.scrollWidth - {part}.clientWidth")
                assert wider <= most, (width, view, part)


def test_an_import_that_is_cancelled_says_so_and_goes_no_further(
    console: Page, server: ServerProcess, tmp_path: Path
) -> None:
    rows = 30_000
    users = "\n".join(f"u-{number}" for number in range(rows))
    console.get_by_role("link", name="Imports").click()
    path = written(tmp_path, "cancelled.csv", f"fs_user_id\n{users}\n")
    console.get_by_label("Drop a list here").set_input_files(path)
    console.get_by_role("button", name="Import").click()
    console.get_by_role("button", name="Cancel import").click()
    expect(console.locator("p.lead .badge")).to_have_text("cancelled")
    expect(console.get_by_role("button", name="Cancel import")).to_have_count(0)
    shot(console, "cancelled")
    with server.client(server.private_key) as client:
        [job] = client.get("/v3/imports").json()["imports"]
    assert job["state"] == "cancelled"
    assert job["qualified"] < rows
