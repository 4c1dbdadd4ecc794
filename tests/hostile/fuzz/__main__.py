"""`python -m tests.hostile.fuzz TARGET [CORPUS...] [-runs=N] [-max_total_time=SECONDS]`: atheris, libFuzzer's options.

What it finds interesting goes to the first corpus folder named; an input that breaks a promise is written beside the
working directory and the exit code is not 0.
"""

import sys

import atheris


def main(arguments: list[str]) -> None:
    """Run one target until it is told to stop."""
    name, *options = arguments[1:]
    # Coverage of what is under test, and not of the tests or the libraries.
    with atheris.instrument_imports(include=["segmentd"]):
        from tests.hostile.fuzz.targets import TARGETS
    atheris.Setup([arguments[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
