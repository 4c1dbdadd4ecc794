"""Medians, spread, ratios, the table and the aims are arithmetic that readers rely on."""

from pathlib import Path

import pytest

from bench import aims, report
from bench.measurements import METRICS, Failure, Measurement, Median, Metric, Results, median_of, ratio
from bench.work import EVENTS, MIXED, QUERIES

RATE = Metric("per_second", "queries/s", True)
LATENCY = Metric("p99_us", "p99 ms", False, 2, 1000)


def measured(contestant: str, *rates: float, work: str = QUERIES[0].name) -> list[Measurement]:
    return [Measurement("queries", work, contestant, n, {"per_second": rate}) for n, rate in enumerate(rates, 1)]


def test_one_bad_round_does_not_move_the_median() -> None:
    assert median_of([100, 1, 102]).value == 100


def test_the_median_of_an_even_number_of_rounds_lies_between_the_middle_ones() -> None:
    assert median_of([1, 3, 5, 100]).value == 4


def test_the_spread_is_the_distance_of_the_extremes_in_medians() -> None:
    assert median_of([90, 100, 110]).spread == pytest.approx(0.2)


def test_a_median_of_zero_has_no_spread() -> None:
    assert median_of([0, 0]) == Median(0, 0, 2)


def test_a_ratio_above_one_means_that_the_first_is_better_whichever_way_the_metric_counts() -> None:
    assert ratio(RATE, median_of([300]), median_of([100])) == 3
    assert ratio(LATENCY, median_of([100]), median_of([300])) == 3


@pytest.mark.parametrize(
    ("first", "other"), [(None, median_of([1])), (median_of([1]), None), (median_of([0]), median_of([1]))]
)
def test_there_is_no_ratio_with_what_was_not_measured(first: Median | None, other: Median | None) -> None:
    assert ratio(RATE, first, other) is None


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.5, "0.50 ×"), (2.345, "2.35 ×"), (12.34, "12.3 ×"), (1234.5, "1,234 ×")]
)
def test_a_ratio_is_shown_with_three_figures(value: float | None, shown: str) -> None:
    assert report.ratio_cell(value) == shown


def test_a_value_is_shown_in_its_unit_with_half_the_spread() -> None:
    assert report.cell(LATENCY, 1234.0, 0.2, 3) == "1.23 ±10%"
    assert report.cell(RATE, 29_100.4, 0.0, 1) == "29,100"


def test_the_table_has_a_column_a_contestant_and_a_ratio_for_each_but_the_first() -> None:
    results = Results([*measured("segmentd", 900, 1000, 1100), *measured("plain", 100)])
    header, row = report.table(results, ["segmentd", "plain"])
    assert header == ["work", "metric", "segmentd", "plain", "segmentd against plain"]
    assert row == [QUERIES[0].name, "queries/s", "1,000 ±10%", "100", "10.0 ×"]


def test_what_only_failed_still_has_its_place_among_the_works() -> None:
    results = Results(measured("segmentd", 1), [Failure("mixed", MIXED[0].name, "plain", 1, "wrong answer")])
    assert results.works() == [("queries", QUERIES[0].name), ("mixed", MIXED[0].name)]


def test_markdown_and_text_show_the_same_cells() -> None:
    rows = [["work", "metric", "a"], ["w", "m", "1"]]
    assert report.as_markdown(rows).splitlines() == ["| work | metric | a |", "| --- | --- | ---: |", "| w | m | 1 |"]
    assert report.as_text(rows).splitlines() == ["work  metric  a", "w     m       1"]


def test_written_measurements_read_back_the_same(tmp_path: Path) -> None:
    results = Results(measured("segmentd", 1.5, 2.5))
    json_path, page = report.write(tmp_path, "run", results, {"segmentd": "it"}, {"commit": "abc"}, ["- reached: all"])
    assert report.read_measurements(json_path).measurements == results.measurements
    text = page.read_text()
    assert "commit: abc" in text
    assert "- reached: all" in text


def test_an_aim_is_reached_at_its_bound_and_missed_below() -> None:
    def lines(ours: float) -> list[str]:
        return aims.judged(Results([*measured("segmentd", ours), *measured("well-done", 100)]))

    assert lines(1000)[0].startswith("- reached: queries/s at 16 connections")
    assert lines(999)[0].startswith("- MISSED: queries/s at 16 connections")


def test_an_aim_that_was_not_measured_is_not_judged() -> None:
    assert aims.judged(Results()) == []


def test_a_slower_ingest_than_asked_misses_the_aim_for_queries_beside_it() -> None:
    values = {"p99_us": 1000.0, "events_per_second": 20_000.0}
    assert "MISSED" in aims.judged(Results([Measurement("mixed", MIXED[0].name, "segmentd", 1, values)]))[0]
    values = {"p99_us": 1000.0, "events_per_second": 50_000.0}
    assert "reached" in aims.judged(Results([Measurement("mixed", MIXED[0].name, "segmentd", 1, values)]))[0]


def test_a_run_says_how_often_something_else_was_busy() -> None:
    shares = [
        Measurement("queries", "w", "segmentd", n, {"foreign_cpu": share})
        for n, share in enumerate((0.0, 0.5, 0.01, 0.1))
    ]
    assert Results(shares).disturbed() == 0.5
    assert Results().disturbed() == 0


def test_every_work_has_a_name_of_its_own_and_every_part_its_metrics() -> None:
    names = [work.name for work in (*QUERIES, *EVENTS, *MIXED)]
    assert len(set(names)) == len(names)
    assert {"queries", "events", "mixed", "scale"} == set(METRICS)
