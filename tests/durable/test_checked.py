"""A file that others may have touched is checked field by field, and refused by one line that names it."""

from pathlib import Path
from typing import Any

import pytest

from durable.checked import NameInside, Shape, checked, fitting, read_json
from durable.errors import DurableError


class Part(Shape):
    share: float


class Whole(Shape):
    name: str
    count: int = 0
    parts: list[Part] = []  # noqa: RUF012 - pydantic copies it


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "[], expected an object"),
        ({}, "`name` is missing"),
        ({"name": 5}, "`name` is 5, expected a valid string"),
        ({"name": "a", "count": True}, "`count` is True, expected a valid integer"),
        ({"name": "a", "count": "1"}, "`count` is '1', expected a valid integer"),
        ({"name": "a", "parts": [{"share": 1}, {"share": float("inf")}]}, "`parts.1.share` is inf, expected a finite"),
        ({"name": "a", "parts": [None]}, "`parts.0` is None, expected an object"),
        ({"name": ["a" * 100]}, f"`name` is ['{'a' * 58}…, expected"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(document: Any, reason: str) -> None:
    with pytest.raises(DurableError) as caught:
        checked(Whole, document, "whole.json")
    assert str(caught.value).startswith(f"whole.json is damaged: {reason}")
    assert caught.value.__notes__ == ["put the file back from a copy"]
    assert fitting(Whole, document) is None


class Listing(Shape):
    first: NameInside = "a"
    sizes: dict[NameInside, int] = {}  # noqa: RUF012 - pydantic copies it


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a\0"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str) -> None:
    with pytest.raises(DurableError, match="a is damaged: `first` is '.*', expected the name of a file inside the f"):
        checked(Listing, {"first": name}, "a")
    with pytest.raises(
        DurableError, match="a is damaged: `sizes` names '.*', expected the name of a file inside the f"
    ):
        checked(Listing, {"sizes": {name: 1}}, "a")
    assert checked(Listing, {"first": "b/..c", "sizes": {".d": 1}}, "a").first == "b/..c"


def test_what_is_not_asked_for_may_be_anything_and_a_whole_number_is_a_real_one() -> None:
    assert checked(Whole, {"name": "a", "parts": [{"share": 1}], "more": None}, "").parts[0].share == 1.0


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DurableError, match=r"a\.json is damaged: "):
        read_json(tmp_path / "a.json")
    with pytest.raises(DurableError, match="is damaged: it is a folder"):
        read_json(tmp_path)
