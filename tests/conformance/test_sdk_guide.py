"""The guide for the SDKs does what it says, with the published SDKs."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conformance.datafile import datafile
from tests.docs.documents import SDKS
from tests.docs.walk import Walk


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's commands need curl")
def test_the_guide_for_the_sdks_does_what_it_says(javascript: Path, tmp_path: Path) -> None:
    # As Optimizely serves it, with an integration that leads nowhere: the guide has to replace it.
    (tmp_path / "datafile.json").write_text(json.dumps(datafile("http://127.0.0.1:9", "none")), encoding="utf-8")
    # Here version 6 is installed under an alias, beside version 5.
    packages = tmp_path / "node_modules" / "@optimizely"
    packages.mkdir(parents=True)
    (packages / "optimizely-sdk").symlink_to(javascript / "node_modules" / "optimizely-sdk-6")
    with Walk(tmp_path, SDKS) as walk:
        walk.through(SDKS.read_text(encoding="utf-8"))
