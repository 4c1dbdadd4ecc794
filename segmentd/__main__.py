"""`python -m segmentd`: the same as the command `segmentd`."""

from segmentd.cli import main

if __name__ == "__main__":
    main()
