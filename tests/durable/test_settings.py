import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from durable.errors import DurableError
from durable.settings import difference, dump_toml, parse_assignment, read_toml, validated, with_assignments


class Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    max_steps: int = 200_000
    warmup_steps: int | None = None


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    seed: int = 1
    schedule: Schedule = Schedule()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ('a.b="3"', "3"),
        ("a.b=all", "all"),
    ],
)
def test_a_value_is_toml_where_it_can_be_else_a_string(text: str, value: Any) -> None:
    assert parse_assignment(text) == (["a", "b"], value)


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=3", ".a=3"])
def test_an_assignment_without_key_or_sign_is_refused(text: str) -> None:
    with pytest.raises(DurableError, match="is not `section.key=value`"):
        parse_assignment(text)


def test_assignments_apply_in_order_and_leave_the_document_alone() -> None:
    document = {"schedule": {"max_steps": 5}}
    assert with_assignments(document, ["schedule.max_steps=6", "schedule.max_steps=7", "seed=2"]) == {
        "schedule": {"max_steps": 7},
        "seed": 2,
    }
    assert document == {"schedule": {"max_steps": 5}}


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(DurableError, match=r"`schedule\.max_step` is not a recipe key") as caught:
        validated(Recipe, {"schedule": {"max_step": 10}}, what="recipe")
    assert caught.value.__notes__ == ["did you mean `schedule.max_steps`?"]


@pytest.mark.parametrize(
    ("document", "hints"),
    [
        ({"max_steps": 10}, ["did you mean `schedule.max_steps`?"]),
        ({"shedule": {"max_steps": 10}}, ["did you mean `schedule`?"]),
        ({"foo": 1}, []),
        ({"schedule": {"x": 1}}, []),
    ],
)
def test_a_key_without_its_section_is_found_and_nothing_far_fetched_is_proposed(
    document: dict[str, Any], hints: list[str]
) -> None:
    with pytest.raises(DurableError, match="is not a recipe key") as caught:
        validated(Recipe, document, what="recipe")
    assert getattr(caught.value, "__notes__", []) == hints


def test_a_value_of_the_wrong_kind_is_shown_with_what_was_expected() -> None:
    with pytest.raises(DurableError, match=r"`seed` = '3': should be a valid integer"):
        validated(Recipe, {"seed": "3"}, what="recipe")


def test_settings_survive_a_round_trip_through_toml() -> None:
    recipe = validated(Recipe, {"seed": 7}, what="recipe")
    assert validated(Recipe, tomllib.loads(dump_toml(recipe)), what="recipe") == recipe


def test_the_difference_names_every_key_with_both_values() -> None:
    old = {"seed": 1, "schedule": {"max_steps": 5}, "gone": True}
    new = {"seed": 1, "schedule": {"max_steps": 6}, "new": [1]}
    assert difference(old, new) == ["gone: True → absent", "new: absent → [1]", "schedule.max_steps: 5 → 6"]
    assert difference(old, old) == []


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(DurableError, match=r"none\.toml does not exist"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(DurableError, match=r"bad\.toml is not valid TOML: .*line 1"):
        read_toml(tmp_path / "bad.toml")
