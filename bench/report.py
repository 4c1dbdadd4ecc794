"""The table, and the dated files of a run.

Owns how results are shown as text. Never measures, never judges (`aims.py` does).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.measurements import METRICS, Measurement, Metric, Results, ratio

MISSING = "–"


def cell(metric: Metric, value: float, spread: float, rounds: int) -> str:
    """`29,100 ±4%`; the spread only where there was more than one round."""
    shown = f"{value / metric.divisor:,.{metric.digits}f}"
    return f"{shown} ±{spread / 2:.0%}" if rounds > 1 else shown


def ratio_cell(value: float | None) -> str:
    """`12.3 ×`, with fewer decimals for large ones."""
    if value is None:
        return MISSING
    return f"{value:,.0f} ×" if value >= 100 else f"{value:.1f} ×" if value >= 10 else f"{value:.2f} ×"


def table(results: Results, contestants: Sequence[str]) -> list[list[str]]:
    """Header and rows: work, metric, one column a contestant, one ratio a contestant after the first."""
    first, *others = contestants
    rows = [["work", "metric", *contestants, *(f"{first} against {other}" for other in others)]]
    for part, work in results.works():
        label = work
        for metric in METRICS[part]:
            medians = {name: results.median(part, work, name, metric.key) for name in contestants}
            if not any(medians.values()):
                continue
            cells = [cell(metric, m.value, m.spread, m.rounds) if m else MISSING for m in medians.values()]
            ratios = [ratio_cell(ratio(metric, medians[first], medians[other])) for other in others]
            rows.append([label, metric.title, *cells, *ratios])
            label = ""
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned for a terminal: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    return "\n".join(line(row) for row in rows)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's kind."""
    header, *body = rows
    rule = ["---" if column < 2 else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *body])


def disturbance(results: Results) -> str:
    """A sentence on how quiet the machine was."""
    return (
        f"Something else used a tenth or more of the servers' core during {results.disturbed():.0%} of the measurements"
        " (`foreign_cpu` in the JSON file)."
    )


def write(
    folder: Path, stem: str, results: Results, contestants: dict[str, str], facts: dict[str, Any], aims: Sequence[str]
) -> list[Path]:
    """Write STEM.json (every round) and STEM.md (the table). contestants: description by name. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "facts": facts,
        "contestants": contestants,
        "measurements": results.measurements,
        "failures": results.failures,
    }
    json_path, text_path = folder / f"{stem}.json", folder / f"{stem}.md"
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    text_path.write_text(_page(stem, results, contestants, facts, aims))
    return [json_path, text_path]


def read_measurements(path: Path) -> Results:
    """The measurements of a JSON file that `write` wrote."""

    class Record(msgspec.Struct):
        measurements: list[Measurement]

    return Results(msgspec.json.decode(path.read_bytes(), type=Record).measurements)


def _page(stem: str, results: Results, contestants: dict[str, str], facts: dict[str, Any], aims: Sequence[str]) -> str:
    lines = [f"# {stem}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "Contestants:", ""]
    lines += [f"- **{name}**: {text}" for name, text in contestants.items()]
    lines += [
        "",
        "Medians of the rounds; ± is half the distance between the best and the worst round. A ratio above 1 means that"
        f" {next(iter(contestants))} is better.",
        "",
        disturbance(results),
        "",
        as_markdown(table(results, list(contestants))),
    ]
    if aims:
        lines += ["", "## Aims", "", *aims]
    if results.failures:
        lines += ["", "## Failures", ""]
        lines += [f"- {f.contestant}, {f.work}, round {f.round}: {f.reason}" for f in results.failures]
    return "\n".join(lines) + "\n"
