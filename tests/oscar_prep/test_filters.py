"""Which documents each rule drops."""

from typing import Any

import pyarrow as pa
import pytest

from oscar_prep.configuration import Configuration
from oscar_prep.filters import Blocklist, HarmfulPerplexity, QualityWarnings, Rule, judge, rules_of
from oscar_prep.layout import METADATA

ABSENT = object()


def documents(key: str, values: list[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{} if value is ABSENT else {key: value} for value in values], METADATA)


@pytest.mark.parametrize(
    ("value", "missing", "dropped"),
    [
        (5.0, "drop", True), (5.000001, "drop", False), (4.9, "drop", True), (100_000.0, "drop", True),
        (99_999.9, "drop", False), (6, "drop", False), (-1.0, "keep", True), (float("inf"), "keep", True),
        (None, "drop", True), (ABSENT, "drop", True), (0.0, "drop", True), (float("nan"), "drop", True),
        (None, "keep", False), (ABSENT, "keep", False), (0.0, "keep", False), (float("nan"), "keep", False),
    ],
)  # fmt: skip
def test_harmful_perplexity_lies_strictly_between_its_bounds(value: Any, missing: str, dropped: bool) -> None:
    assert HarmfulPerplexity(5.0, 100_000.0, missing).drops(documents("harmful_pp", [value])).tolist() == [dropped]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("all", [True, True, False, False, False]), (["tiny"], [True, False, False, False, False]), ([], [False] * 5)],
)
def test_quality_warnings_drop_what_carries_a_named_one(wanted: Any, expected: list[bool]) -> None:
    batch = documents("quality_warnings", [["noisy", "tiny"], ["header"], [], None, ABSENT])
    assert QualityWarnings(wanted).drops(batch).tolist() == expected


def test_the_blocklist_drops_by_the_records_categories() -> None:
    batch = documents("categories", [["press", "adult"], ["press"], [None], [], None, ABSENT])
    assert Blocklist(["adult"]).drops(batch).tolist() == [True, False, False, False, False, False]
    assert not Blocklist([]).drops(batch).any()


@pytest.mark.parametrize("rule", rules_of(Configuration()), ids=lambda rule: rule.name)
def test_a_rule_answers_for_every_document_whatever_part_of_a_batch_it_is_asked_about(rule: Rule) -> None:
    batch = pa.concat_batches([documents("categories", [["adult"], None]), documents("harmful_pp", [1.0, 50.0, None])])
    whole = rule.drops(batch).tolist()
    assert len(whole) == 5
    assert [rule.drops(batch.slice(row, 1)).tolist()[0] for row in range(5)] == whole
    assert rule.drops(batch.slice(0, 0)).tolist() == []


def test_the_rules_are_asked_in_the_papers_order() -> None:
    rules = rules_of(Configuration())
    assert [rule.name for rule in rules] == ["blocklist", "harmful_pp", "quality_warnings"]
    assert judge(documents("categories", [["adult"], ["press"]]), rules).tolist() == [
        [True, False], [True, True], [False, False],
    ]  # fmt: skip
