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


def library_path() -> str:
    """`LD_LIBRARY_PATH` for what is unpacked: programs find the libraries unpacked beside them."""
    unpacked = [str(folder) for root in (UNPACKED, UNPACKED.parent) for folder in root.glob("lib/*-linux-gnu")]
    return os.pathsep.join([*unpacked, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
