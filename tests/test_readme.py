"""The README begins with what a newcomer needs, and its figures are those of the run that it names.

That its commands do what they say is for tests/docs.
"""

import re

from segmentd.settings import Settings
from tests.docs.documents import DOCS, README, blocks, section
from tests.sources import ROOT

TEXT = README.read_text(encoding="utf-8")


def test_the_two_commands_stand_at_the_top() -> None:
    assert re.findall(r"^make (\w+)", blocks(TEXT)[0].text, re.MULTILINE) == ["serve", "test"]
    assert TEXT.index("make serve") < TEXT.index("\n## ")


def test_the_tour_is_six_calls_and_their_answers() -> None:
    assert [block.language for block in blocks(section(TEXT, "A tour"))] == ["sh", "json"] * 6


def test_the_figures_about_speed_are_in_the_run_that_is_linked() -> None:
    speed = section(TEXT, "Speed")
    linked = re.search(r"\]\((bench/results/\S+\.md)\)", speed)
    assert linked
    run = (ROOT / linked[1]).read_text(encoding="utf-8")
    rows = re.findall(r"^\| \S.*? \| ([\d,]+) \| ([\d,]+) \| [\d.]+ \|$", speed, re.MULTILINE)
    assert len(rows) >= 5
    for row in rows:
        assert [figure for figure in row if f" {figure} " not in run] == []


def test_the_limits_of_the_api_page_are_the_defaults() -> None:
    limits = section((DOCS / "api.md").read_text(encoding="utf-8"), "Limits")
    rows = re.findall(r"^\| `(\w+)\.(\w+)`[^|]* \| (\d+) \|$", limits, re.MULTILINE)
    assert len(rows) >= 10
    settings = Settings()
    assert {(s, key): int(value) for s, key, value in rows} == {
        (s, key): getattr(getattr(settings, s), key) for s, key, _ in rows
    }


def test_the_figures_of_the_guide_to_sizes_are_measured_ones() -> None:
    text = (DOCS / "sizing.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(\.\./(bench/results/\S+\.md)\)", text)
    assert linked
    measured = "".join((ROOT / source).read_text(encoding="utf-8") for source in [*linked, "bench/README.md"])
    cells = re.findall(r"(?<=\| )([\d,.]+)(?=(?:/s| ms)? \|)", text) + re.findall(
        r"([\d,]+) (?:rows|identifiers)/s", text
    )
    assert len(cells) >= 15
    assert [cell for cell in cells if not re.search(rf"(?<![\d,.]){re.escape(cell)}(?![\d,.])", measured)] == []
