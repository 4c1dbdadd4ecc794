"""Interludes: who waits for an answer that takes microseconds gets it in the middle of work that takes milliseconds.

A large upload is read, journalled and merged in slices. Giving the loop its turn after each slice would do, but in a
turn of the loop every task that can go on does a slice, so whoever waits for the loop waits for the slices of all.
Instead work that is cut into slices calls this between two of them, and whoever answers at once (the lane's reactor)
looks, on the spot, whether anybody asks. Owns nothing but the connection between the two. Never waits.
"""

from collections.abc import Callable


def nobody_waits() -> None:
    """What is called where nothing answers at once."""


class Interludes:
    """Called between two slices; does what was given to `fill`, which is short or bounds how often it is not."""

    def __init__(self) -> None:
        self._fill = nobody_waits

    def __call__(self) -> None:
        self._fill()

    def fill(self, answer: Callable[[], None] = nobody_waits) -> None:
        """Have `answer` be called from now on. It must not raise, and must bear being called from within itself."""
        self._fill = answer
