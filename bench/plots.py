"""Plots of a run, as SVG.

Owns the pictures. Reads measurements, never takes any. Needs matplotlib (the extra `bench`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measurements import Results
from bench.work import EVENTS, QUERIES

PERCENTILES: Final = (("p50_us", "50"), ("p90_us", "90"), ("p99_us", "99"), ("p999_us", "99.9"))
_SIZE_INCHES: Final = (7.5, 4.5)


def draw(folder: Path, stem: str, results: Results, contestants: Sequence[str]) -> list[Path]:
    """Write the plots that the measurements allow; returns their paths."""
    mpl.rcParams["svg.hashsalt"] = "segmentd"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"
    drawings = {
        "latency-16": _latency(results, contestants, QUERIES[0].name),
        "latency-1": _latency(results, contestants, QUERIES[1].name),
        "batch": _against_batch(results, contestants),
        "memberships": _against_memberships(results, contestants),
    }
    written = []
    for name, figure in drawings.items():
        if figure is not None:
            path = folder / f"{stem}-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def _latency(results: Results, contestants: Sequence[str], work: str) -> Figure | None:
    def points(contestant: str) -> list[tuple[float, float]]:
        medians = [results.median("queries", work, contestant, key) for key, _ in PERCENTILES]
        return [(place, found.value / 1000) for place, found in enumerate(medians) if found]

    figure, axes = _figure(work, "percentile", "latency, ms")
    axes.set_xticks(range(len(PERCENTILES)), [label for _, label in PERCENTILES])
    return figure if _lines(axes, contestants, points) else None


def _against_batch(results: Results, contestants: Sequence[str]) -> Figure | None:
    works = [work for work in EVENTS if work.distinct]

    def points(contestant: str) -> list[tuple[float, float]]:
        medians = [(w.batch, results.median("events", w.name, contestant, "events_per_second")) for w in works]
        return [(batch, found.value) for batch, found in medians if found]

    figure, axes = _figure("Ingest, distinct identifiers", "events in a request", "events/s")
    axes.set_xscale("log")
    axes.set_xticks([work.batch for work in works], [str(work.batch) for work in works])
    axes.minorticks_off()
    return figure if _lines(axes, contestants, points) else None


def _against_memberships(results: Results, contestants: Sequence[str]) -> Figure | None:
    sizes = [(float(work.partition("M")[0]), work) for part, work in results.works() if part == "scale"]

    def points(key: str) -> Callable[[str], list[tuple[float, float]]]:
        def of(contestant: str) -> list[tuple[float, float]]:
            medians = [(size, results.median("scale", work, contestant, key)) for size, work in sizes]
            return [(size, found.value) for size, found in medians if found]

        return of

    if len(sizes) < 2:
        return None  # one size is no curve
    figure = Figure(figsize=(_SIZE_INCHES[0] * 1.6, _SIZE_INCHES[1]), layout="constrained")
    drawn = False
    for place, (key, label) in enumerate((("per_second", "queries/s"), ("events_per_second", "events/s")), start=1):
        axes = figure.add_subplot(1, 2, place)
        _dress(axes, f"{label} against size", "million memberships", label)
        axes.set_xscale("log")
        axes.set_xticks([size for size, _ in sizes], [f"{size:g}" for size, _ in sizes])
        axes.minorticks_off()
        drawn = _lines(axes, contestants, points(key)) or drawn
    return figure if drawn else None


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes, title, x, y)
    return figure, axes


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.25)


def _lines(axes: Axes, contestants: Sequence[str], points: Callable[[str], list[tuple[float, float]]]) -> bool:
    """One line a contestant; False where there is nothing to draw."""
    drawn = False
    for contestant in contestants:
        found = points(contestant)
        if found:
            axes.plot(*zip(*found, strict=True), marker="o", label=contestant)
            drawn = True
    if drawn:
        axes.legend()
    return drawn
