"""Where programs that are no Python packages are found: installed, or unpacked by .ci/tools beside the environment."""

import os
import shutil
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "programs" / "usr"


def find_program(name: str) -> str | None:
    """The path of the program `name`, or None where it is neither installed nor unpacked."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", str(UNPACKED / "bin"), str(UNPACKED / "sbin")]
    return shutil.which(name, path=os.pathsep.join(folders))
