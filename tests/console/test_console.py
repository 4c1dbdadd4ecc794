"""The console does what its buttons say, in a real browser on a real server."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.console.conftest import OpenPage, shot, sign_in, written
from tests.serverprocess import ServerProcess

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def send(server: ServerProcess, audience: str, users: list[str], *, action: str = "qualify", ts: float) -> None:
    events = [
        {"type": "passthrough", "action": action, "identifiers": {"fs_user_id": user}}
        | {"data": {"audience_id": audience, "ts": int(ts)}}
        for user in users
    ]
    with server.client(server.private_key) as client:
        assert client.post("/v3/events", json=events).status_code == 202


def create(server: ServerProcess, segment: str, audience: str, **more: Any) -> None:
    body = {"definition": {"external": {"external_audience_id": audience}}, **more}
    with server.client(server.private_key) as client:
        assert client.put(f"/v3/segments/{segment}", json=body).status_code == 201


def visit(page: Page, title: str) -> None:
    page.get_by_role("navigation", name="Console").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()


def choose_file(page: Page, path: Path) -> None:
    visit(page, "Imports")
    page.get_by_label("Drop a list here").set_input_files(path)


def fact_row(page: Page, term: str) -> Locator:
    return page.locator("dl.facts > div").filter(has=page.get_by_text(term, exact=True))


def fact(page: Page, term: str, value: str) -> None:
    expect(fact_row(page, term).locator("dd")).to_have_text(value)


def test_only_a_private_key_signs_in_and_it_is_kept_nowhere(open_page: OpenPage, server: ServerProcess) -> None:
    page = open_page()
    for wrong in ("wrong", server.public_key):
        page.get_by_label("Private key").fill(wrong)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("needs a private key")
        expect(page.get_by_label("Private key")).to_be_focused()
    sign_in(page, server.private_key)
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, document.body.outerHTML]")
    assert kept[:3] == [0, 0, ""]
    assert server.private_key not in kept[3]
    page.reload()
    expect(page.get_by_label("Private key")).to_have_value("")


def test_signing_out_forgets_the_key_and_what_was_shown(console: Page, server: ServerProcess) -> None:
    create(server, "left_behind", "left_behind")
    visit(console, "Segments")
    expect(console.get_by_role("link", name="left_behind")).to_be_visible()
    console.get_by_role("button", name="Sign out").click()
    expect(console.get_by_label("Private key")).to_be_focused()
    expect(console.get_by_text("left_behind")).to_have_count(0)
    console.go_back()
    expect(console.get_by_label("Private key")).to_be_visible()


def test_an_audience_without_a_segment_gets_one_that_is_complete_at_once(console: Page, server: ServerProcess) -> None:
    send(server, "Spring:Campaign", ["u-1", "u-2", "u-3"], ts=1_748_851_070)
    visit(console, "Audiences")
    console.get_by_role("button", name="Create segment for Spring:Campaign").click()
    dialog = console.get_by_role("dialog", name="New segment")
    expect(dialog.get_by_label("Segment id")).to_have_value("spring_campaign")
    dialog.get_by_label("Description").fill("Saw the campaign.")
    dialog.get_by_label("Metadata").fill("owner = crm\nseason = spring = 2026")
    dialog.get_by_role("button", name="Create segment").click()
    expect(console.get_by_role("heading", level=1, name="spring_campaign")).to_be_visible()
    fact(console, "Members", "3")
    expect(fact_row(console, "Last event").locator("time")).to_have_attribute("datetime", "2025-06-02T07:57:50.000Z")
    fact(console, "Last import", "–")
    fact(console, "season", "spring = 2026")
    with server.client(server.private_key) as client:
        assert client.get("/v3/segments/spring_campaign").json() == {
            "revision": 1,
            "description": "Saw the campaign.",
            "metadata": {"owner": "crm", "season": "spring = 2026"},
            "definition": {"external": {"external_audience_id": "Spring:Campaign"}},
        }
    visit(console, "Audiences")
    expect(console.get_by_role("button", name="Create segment for Spring:Campaign")).to_have_count(0)
    visit(console, "Segments")
    row = console.get_by_role("row").filter(has_text="Spring:Campaign")
    expect(row.locator("td[data-label='Known as of'] time")).to_have_attribute("datetime", "2025-06-02T07:57:50.000Z")


def test_a_change_over_somebody_elses_change_is_refused_and_said(console: Page, server: ServerProcess) -> None:
    create(server, "edited", "edited")
    visit(console, "Segments")
    console.get_by_role("link", name="edited").click()
    console.get_by_role("button", name="Edit").click()
    with server.client(server.private_key) as client:
        body = {"description": "theirs", "definition": {"external": {"external_audience_id": "edited"}}}
        assert client.put("/v3/segments/edited", json=body).json() == {"revision": 2}
    dialog = console.get_by_role("dialog")
    dialog.get_by_label("Description").fill("mine")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody changed it since you opened revision 1")
    with server.client(server.private_key) as client:
        assert client.get("/v3/segments/edited").json()["description"] == "theirs"
    console.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(console.get_by_role("button", name="Edit")).to_be_focused()


def test_an_existing_segment_is_not_created_again_and_a_deleted_one_is_gone(
    console: Page, server: ServerProcess
) -> None:
    create(server, "doomed", "doomed")
    visit(console, "Segments")
    console.get_by_role("button", name="New segment").click()
    dialog = console.get_by_role("dialog")
    dialog.get_by_label("Segment id").fill("Doomed")
    dialog.get_by_label("External audience id").fill("other")
    dialog.get_by_role("button", name="Create segment").click()
    expect(dialog.get_by_role("alert")).to_contain_text("There is a segment of this id already")
    dialog.get_by_role("button", name="Cancel").click()
    console.get_by_role("link", name="doomed").click()
    console.get_by_role("button", name="Delete", exact=True).click()
    console.get_by_role("button", name="Delete segment").click()
    expect(console.get_by_role("heading", level=1, name="Segments")).to_be_visible()
    expect(console.get_by_role("link", name="doomed")).to_have_count(0)


def test_a_customer_shows_every_membership_and_what_decided_it(
    console: Page, server: ServerProcess, tmp_path: Path
) -> None:
    now = int(time.time())
    send(server, "looked_event", ["who"], ts=now - 60)
    send(server, "looked_out", ["who"], action="disqualify", ts=now - 50)
    send(server, "looked_swept", ["who", "a", "b"], ts=now - 40)
    with server.client(server.private_key) as client:
        for audience, users in (("looked_list", "who"), ("looked_swept", "a\nb")):
            answer = client.post(
                f"/v3/audiences/{audience}/imports?as_of={now - 10}",
                content=f"fs_user_id\n{users}\n",
                headers={"content-type": "text/csv"},
            )
            job = answer.json()["id"]
            while client.get(f"/v3/imports/{job}").json()["finished_at"] is None:
                time.sleep(0.02)
    visit(console, "Customers")
    console.get_by_label("Value").fill("who")
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_text("Member of 2 of 4 audiences")).to_be_visible()
    for audience, state, why in (
        ("looked_event", "qualified", "An event qualified them."),
        ("looked_out", "not qualified", "An event disqualified them."),
        ("looked_list", "qualified", "an import lists them."),
        ("looked_swept", "not qualified", "Missing from the list of an import."),
    ):
        row = console.get_by_role("row").filter(has_text=audience)
        expect(row.get_by_role("cell").nth(1)).to_have_text(state)
        expect(row.get_by_role("cell").nth(4)).to_have_text(why)
    shot(console, "customer")
    console.get_by_label("Value").fill("x" * 300)
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_role("alert")).to_contain_text("at most 256 are allowed")


def test_a_dropped_list_is_imported_and_its_report_names_the_rejected_rows(
    console: Page, server: ServerProcess, tmp_path: Path
) -> None:
    rows = "\n".join(f"listed-{number}" for number in range(200))
    path = written(tmp_path, "from_file.csv", f"fs_user_id\n{rows}\n{'x' * 300}\n")
    choose_file(console, path)
    expect(console.get_by_label("Audience")).to_have_value("from_file")
    console.get_by_label("As of").fill("2025-06-02T07:57:50")
    console.get_by_role("button", name="Import").click()
    expect(console.locator("p.lead .badge")).to_have_text("completed")
    # By the clock of the browser, wherever it is.
    fact(console, "As of", "2025-06-02 07:57:50")
    fact(console, "Rows", "201")
    fact(console, "Qualified", "200")
    row = console.get_by_role("table", name="Rejected rows").get_by_role("row").nth(1)
    expect(row).to_contain_text("202")
    expect(row).to_contain_text("at most 256 are allowed")
    shot(console, "import")


def test_a_file_that_cannot_be_read_is_said_and_imports_nothing(console: Page, tmp_path: Path) -> None:
    choose_file(console, written(tmp_path, "unreadable.csv", "nonsense\nx\n"))
    console.get_by_role("button", name="Import").click()
    expect(console.get_by_role("alert")).to_contain_text("header")


def test_a_list_that_shrinks_much_is_stopped_and_can_be_forced(
    console: Page, server: ServerProcess, tmp_path: Path
) -> None:
    send(server, "shrinking", [f"s-{number}" for number in range(10)], ts=time.time() - 30)
    choose_file(console, written(tmp_path, "shrinking.csv", "fs_user_id\ns-1\n"))
    console.get_by_role("button", name="Import").click()
    expect(console.get_by_role("alert")).to_contain_text("It would disqualify 9 of 10 members")
    console.get_by_role("button", name="Import it all the same").click()
    expect(console.locator("p.lead .badge")).to_have_text("completed")
    fact(console, "Disqualified", "9")


def test_members_are_paged_and_downloaded(console: Page, server: ServerProcess, tmp_path: Path) -> None:
    create(server, "paged", "paged")
    send(server, "paged", [f"m-{number:03}" for number in range(120)], ts=time.time() - 5)
    console.goto(f"{server.url}/#/segments/paged")
    members = console.get_by_role("table", name="Members")
    expect(members.get_by_role("row")).to_have_count(51)
    console.get_by_role("button", name="Show more").click()
    console.get_by_role("button", name="Show more").click()
    expect(members.get_by_role("row")).to_have_count(121)
    expect(console.get_by_role("button", name="Show more")).to_have_count(0)
    for form, lines in (("CSV.gz", 121), ("NDJSON.gz", 120)):
        with console.expect_download() as download:
            console.get_by_role("button", name=f"Download {form}").click()
        assert download.value.suggested_filename == f"paged.{form.lower()}"
        saved = tmp_path / form
        download.value.save_as(saved)
        assert len(gzip.decompress(saved.read_bytes()).decode().splitlines()) == lines
    assert json.loads(gzip.decompress(saved.read_bytes()).splitlines()[0])["identifiers"] == {"fs_user_id": "m-000"}


def test_what_clients_write_is_shown_as_text_and_never_runs(console: Page, server: ServerProcess) -> None:
    create(server, "hostile", "hostile", description=HOSTILE, metadata={HOSTILE: HOSTILE})
    send(server, "hostile", [HOSTILE], ts=time.time())
    visit(console, "Segments")
    expect(console.get_by_role("row").filter(has_text="hostile")).to_contain_text(HOSTILE)
    console.get_by_role("link", name="hostile").click()
    expect(console.get_by_role("table", name="Members")).to_contain_text(HOSTILE)
    expect(console.locator("dl.facts")).to_contain_text(HOSTILE)
    visit(console, "Customers")
    console.get_by_label("Value").fill(HOSTILE)
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_role("heading", level=2)).to_contain_text(HOSTILE)
    assert console.locator("main img, main script").count() == 0
    assert "taken" not in console.title()


def test_the_charts_follow_what_happens(console: Page, server: ServerProcess) -> None:
    visit(console, "Traffic")
    send(server, "charted", ["u"], ts=time.time())
    with server.client(server.public_key) as client:
        assert client.post("/v3/graphql", json={"query": "{ __typename }"}).status_code == 200
    charts = console.get_by_role("img", name="Events a second, by outcome. Now: accepted")
    expect(charts).to_be_visible()
    expect(console.get_by_role("img", name="Query latency. Now: p50")).to_be_visible()
    visit(console, "Health")
    expect(console.get_by_role("heading", name="Journal well")).to_be_visible()


def test_everything_is_reached_with_the_keyboard_alone(open_page: OpenPage, server: ServerProcess) -> None:
    page = open_page()
    expect(page.get_by_label("Private key")).to_be_focused()
    page.keyboard.type(server.private_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Segments")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Find by name")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("by_keyboard")
    page.keyboard.press("Tab")
    page.keyboard.type("keys")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="by_keyboard")).to_be_visible()
    page.reload()
    page.keyboard.type(server.private_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="by_keyboard")).to_be_visible()
    page.get_by_role("link", name="Skip to content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
