"""The documentation does what it says: its commands are run as they are printed, and answered as it prints."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.cluster.conftest import NONE_HERE
from tests.cluster.engines import find_engine
from tests.docs.documents import README, SDKS, anchors, blocks, documents, links, markdown_files
from tests.docs.walk import CLUSTER_ADDRESS, Walk
from tests.sources import ROOT, name_of

LOCAL = [path for path in documents() if path != SDKS]
NO_CURL = shutil.which("curl") is None and os.environ.get("CI") != "true"


@pytest.mark.skipif(NO_CURL, reason="the documentation's commands need curl")
@pytest.mark.parametrize("document", LOCAL, ids=name_of)
def test_a_document_does_what_it_says(document: Path, tmp_path: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if all(block.reason for block in blocks(text)):
        return  # nothing to run; what it links to is looked at below
    if CLUSTER_ADDRESS in text and find_engine() is None:
        pytest.skip(NONE_HERE)
    with Walk(tmp_path, document) as walk:
        walk.through(text)


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_target_of_make_that_is_named_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", text, re.MULTILINE)) | set(re.findall(r"`make (\w+)", text)):
        assert f"\n{target}:" in makefile, target


@pytest.mark.parametrize("path", markdown_files(), ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    lost = []
    for link in links(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_a_link_is_a_path_of_this_project_or_a_page_outside_it(document: Path) -> None:
    for link in links(document.read_text(encoding="utf-8")):
        assert not link.startswith(("/", "file:", "http://127.")), link


def test_every_guide_is_linked_from_the_readme_or_the_index() -> None:
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in (README, ROOT / "docs" / "README.md")
        for link in links(path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", link)
    }
    assert [name_of(path) for path in documents() if path != README and path not in linked] == []
