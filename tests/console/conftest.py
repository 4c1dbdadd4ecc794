"""Fixtures of the console's tests: a real server and a real Chromium, which must have nothing to complain of.

Playwright drives Debian's Chromium: it waits as a person does, sees console, downloads and colour schemes, and asks for
no driver of the very same version, as Selenium does. It downloads no browser of its own here.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.conformance.conftest import javascript
from tests.serverprocess import ServerProcess, log_shown
from tests.sources import ROOT

__all__ = ["javascript"]

SHOTS = ROOT / "artifacts" / "console"
"""Pictures of the pages, for whoever wants to look."""
WAIT_MS_MAX = 20_000
expect.set_options(timeout=WAIT_MS_MAX)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; without Chromium the test is skipped, or fails where CI must have it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "the console is not looked at: chromium not found"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Root has no sandbox of its own; the pages are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of a module, with charts that fill quickly."""
    sampling = {"traffic_seconds": 0.1, "size_seconds": 0.2}
    with ServerProcess(tmp_path_factory.mktemp("server"), {"console": sampling}) as server:
        yield server
        server.terminate()


@pytest.fixture
def server(module_server: ServerProcess) -> Iterator[ServerProcess]:
    """The module's server; what it logs during the test is shown when the test fails."""
    with log_shown(module_server):
        yield module_server


class Watch:
    """What a page must not do: complain, or ask for something elsewhere."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._url = url
        self.complaints: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium notes each answer that refuses; that the page shows it is what the tests look at.
        expected = message.text.startswith("Failed to load resource")
        if message.type in {"error", "warning"} and not expected:
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.complaints.append(f"asked for {request.url}")


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: ServerProcess) -> Iterator[OpenPage]:
    """Opens a page of the server in a fresh context. At the end none may have complained or asked for elsewhere."""
    contexts: list[BrowserContext] = []
    watches: list[Watch] = []

    def opened(path: str = "/", *, scheme: str = "light", width: int = 1280) -> Page:
        viewport = {"width": width, "height": 860}
        context = browser.new_context(color_scheme=scheme, viewport=viewport, base_url=server.url)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS_MAX)
        contexts.append(context)
        watches.append(Watch(context, server.url))
        page = context.new_page()
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [line for watch in watches for line in watch.complaints] == []


@pytest.fixture
def console(open_page: OpenPage, server: ServerProcess) -> Page:
    """The console, signed in."""
    page = open_page()
    sign_in(page, server.private_key)
    return page


def sign_in(page: Page, key: str) -> None:
    """Give a key and wait for the console."""
    page.get_by_label("Private key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Console")).to_be_visible()


def shot(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def written(folder: Path, name: str, text: str) -> Path:
    """A file to import."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
