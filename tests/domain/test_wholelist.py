"""Forms of whole lists, and what makes a file or a row wrong."""

import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.domain.wholelist import CsvForm, FileRules, JsonForm, UnreadableFile, audience_id_of, parse_ts

KINDS = [
    IdentifierKind("fs_user_id", Confidence.HIGH, 0),
    IdentifierKind("email", Confidence.HIGH, 1, lower_case=True),
    IdentifierKind("vuid", Confidence.LOW, 2),
]
NOW_MS = 2_000_000_000_000
RULES = FileRules(IdentifierSchema(KINDS, 32), "vip", NOW_MS)
ODP = ["type", "action", "audience_id", "ts", "fs_user_id"]


@given(st.decimals(0, 10**12, places=3))
def test_a_ts_as_text_is_read_exactly(ts: Decimal) -> None:
    assert parse_ts(f"{ts:f}") == int(ts * 1000)


@pytest.mark.parametrize("text", ["", "-1", "1.2345", "1e3", "x", " 1", "1_000", "٣", "1.", ".5", "nan"])
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="seconds"):
        parse_ts(text)


@pytest.mark.parametrize(
    ("name", "audience_id"),
    [
        ("vip.csv", "vip"),
        ("vip.csv.gz", "vip"),
        ("a.b.ndjson", "a.b"),
        ("x.jsonl.gz", "x"),
        ("vip.txt", None),
        (".csv", None),
        ("vip.gz", None),
    ],
)
def test_a_file_is_named_after_its_audience(name: str, audience_id: str | None) -> None:
    assert audience_id_of(name) == audience_id


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (["u-1"], "is the header missing"),
        (["vuid"], "low-confidence"),
        (["fs_user_id", "email"], "several identifiers"),
        (["fs_user_id", "colour"], "unknown columns, at"),
        (["fs_user_id", "fs_user_id"], "twice"),
        ([*ODP[:4], "vuid"], "low-confidence"),
        ([*ODP, "email"], "several identifiers"),
        (["type", "action", "fs_user_id", "colour"], "unknown columns, at"),
    ],
)
def test_a_header_that_fits_no_form_is_named(header: list[str], named: str) -> None:
    with pytest.raises(UnreadableFile, match=named) as caught:
        CsvForm(header, RULES)
    assert caught.value.line == 1


def test_columns_beside_those_of_the_import_file_are_ignored() -> None:
    read = CsvForm([*ODP, "colour", "vuid"], RULES).reader()
    assert read(["passthrough", "qualify", "vip", "12.5", "u", "red", "v"], 2) == (b"u", 12_500)


def test_the_identifier_that_is_asked_for_counts_where_there_are_several() -> None:
    rules = FileRules(RULES.schema, "vip", NOW_MS, identifier="email")
    assert CsvForm(["fs_user_id", "email"], rules).reader()(["u", "A@B.example"], 2) == (b"a@b.example", None)
    with pytest.raises(UnreadableFile, match="no column `email`"):
        CsvForm(["fs_user_id"], rules)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (["passthrough", "disqualify", "vip", "1", "u"], "disqualifies"),
        (["passthrough", "qualify", "others", "1", "u"], "another audience inside; it is imported to `vip`"),
    ],
)
def test_a_row_that_makes_the_file_another_one_refuses_it_whole(fields: list[str], named: str) -> None:
    with pytest.raises(UnreadableFile, match=named) as caught:
        CsvForm(ODP, RULES).reader()(fields, 7)
    assert caught.value.line == 7


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (["passthrough", "qualify", "vip", "1"], "4 columns"),
        (["order", "qualify", "vip", "1", "u"], "`type`"),
        (["passthrough", "maybe", "vip", "1", "u"], "`action`"),
        (["passthrough", "qualify", "", "1", "u"], "`audience_id`"),
        (["passthrough", "qualify", "vip", "x", "u"], "`ts`"),
        (["passthrough", "qualify", "vip", "2000000001", "u"], "future"),
        (["passthrough", "qualify", "vip", "1", ""], "empty"),
        (["passthrough", "qualify", "vip", "1", "a\nb"], "forbidden character"),
        (["passthrough", "qualify", "vip", "1", "x" * 33], "33 bytes"),
        (["passthrough", "qualify", "vip", "1", "é" * 17], "34 bytes"),
    ],
)
def test_a_bad_row_is_named_without_its_value(fields: list[str], named: str) -> None:
    read = CsvForm(ODP, RULES).reader()
    with pytest.raises(ValueError, match=named) as caught:
        read(fields, 2)
    assert "x" * 33 not in str(caught.value)
    assert read(["passthrough", "qualify", "vip", "1", "u"], 3) == (b"u", 1_000)


@given(st.text(alphabet=string.printable + "éß漢\u200b", max_size=40))
def test_a_value_of_a_list_is_the_value_of_an_event(value: str) -> None:
    for kind in KINDS[:2]:
        try:
            expected: bytes | None = RULES.schema.key(kind, value)[1:]
        except ValueError:
            expected = None
        try:
            found: bytes | None = CsvForm([kind.name], RULES).reader()([value], 2)[0]
        except ValueError:
            found = None
        assert found == expected
        try:
            found = JsonForm(RULES).row({kind.name: value}, 1)[0]
        except ValueError:
            found = None
        assert found == expected


def test_objects_are_plain_ones_or_events() -> None:
    form = JsonForm(RULES)
    event = {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": "u", "vuid": "v"},
        "data": {"audience_id": "vip", "ts": 3.25},
    }
    assert form.row(event, 1) == (b"u", 3_250)
    assert form.row({"fs_user_id": "w", "ts": 4}, 2) == (b"w", 4_000)
    assert form.row({"fs_user_id": "w", "colour": "red"}, 3) == (b"w", None)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"email": "a@b.example"}, "another identifier"),
        ({"fs_user_id": "u", "email": "a@b.example"}, "several"),
        ({"fs_user_id": "u", "audience_id": "others"}, "another audience"),
        ({"fs_user_id": "u", "action": "disqualify"}, "disqualifies"),
    ],
)
def test_an_object_that_makes_the_file_another_one_refuses_it_whole(row: dict[str, str], named: str) -> None:
    form = JsonForm(RULES)
    form.row({"fs_user_id": "u"}, 1)
    with pytest.raises(UnreadableFile, match=named):
        form.row(row, 2)


@pytest.mark.parametrize(
    "row", [[], 1, {"vuid": "v"}, {"fs_user_id": 7}, {"fs_user_id": "u", "ts": "1"}, {"fs_user_id": "u", "ts": True}]
)
def test_a_bad_object_is_a_bad_row(row: object) -> None:
    form = JsonForm(RULES)
    form.row({"fs_user_id": "u"}, 1)
    with pytest.raises(ValueError, match=r"\w"):
        form.row(row, 2)


@pytest.mark.parametrize("header", [["a@b.example"], ["a@b.example", "secret"], ["fs_user_id", "a@b.example"]])
def test_the_reason_repeats_no_value_of_a_file_without_header(header: list[str]) -> None:
    with pytest.raises(UnreadableFile) as refusal:
        CsvForm(header, RULES)
    assert "a@b" not in refusal.value.message
    assert "secret" not in refusal.value.message
