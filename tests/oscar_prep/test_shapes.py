"""A manifest that somebody has touched: refused in words, or found wanting, but never a surprise."""

import contextlib
import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.manifest import check_listed
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.provenance import Corpus
from oscar_prep.record import UnitRecord
from oscar_prep.thresholds import funnels
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.verify import verify


@pytest.fixture
def corpus(
    tmp_path: Path, oscar: Callable[..., Any], write_shard: Callable[..., Path], tokenizer: CorpusTokenizer
) -> Path:
    write_shard(tmp_path / "in/a.jsonl", [*(oscar("the quick brown fox", number) for number in range(30)), b"{"])
    configuration = Configuration(sequence_length=16, validation_samples=1, validation_share=0.3)
    plan = Plan(tmp_path / "out", tuple(discover([tmp_path / "in"]).files), tokenizer, configuration)
    assert prepare(plan, Running(max_bad_share=0.1))
    return tmp_path / "out"


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value below `value` is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*above, key)
        yield from places(below, (*above, key))


@pytest.mark.slow
@pytest.mark.parametrize("other", [None, [], {}, "x", -1.5], ids=str)
def test_a_manifest_with_any_value_of_another_type_is_never_a_traceback(corpus: Path, other: Any) -> None:
    path = corpus / "manifest.json"
    whole = json.loads(path.read_text())
    for place in places(whole):
        manifest = copy.deepcopy(whole)
        parent = manifest
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = other
        path.write_text(json.dumps(manifest))
        for read in (verify, questions):
            with contextlib.suppress(PrepareError):
                read(corpus)


def questions(corpus: Path) -> None:
    """What `inspect` and `thresholds` ask."""
    check_listed(corpus)
    opened = Corpus(corpus)
    opened.sample(0)
    funnels(opened, [3.0])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ledger", [], r"manifest\.json is damaged: `ledger` is \[\], expected an object"),
        ("configuration", [], r"manifest\.json is damaged: `configuration` is \[\], expected an object"),
        ("sequence_length", "x", r"manifest\.json is damaged: `sequence_length` is 'x', expected a valid integer"),
        ("units", [{}], r"manifest\.json is damaged: `units\.0\.file` is missing"),
    ],
)
def test_a_damaged_manifest_is_refused_with_what_is_wrong(corpus: Path, key: str, value: Any, message: str) -> None:
    path = corpus / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    for read in (verify, Corpus):
        with pytest.raises(PrepareError, match=message) as error:
            read(corpus)
        assert error.value.__notes__[0].startswith("put it back from a copy; or delete it")


@pytest.mark.parametrize("name", ["train/../../../x", "../train/x", "/etc/passwd"])
@pytest.mark.parametrize("part", ["train", "validation", "documents", "quarantine"])
def test_a_unit_that_names_a_file_outside_the_corpus_is_refused(corpus: Path, part: str, name: str) -> None:
    expected = f"`{part}\\.file` is '{re.escape(name)}', expected "
    (path,) = (corpus / "units").glob("data-*.json")
    record = json.loads(path.read_text())
    record[part]["file"] = name
    path.write_text(json.dumps(record))
    with pytest.raises(PrepareError, match=expected):
        UnitRecord.read(path)
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["units"][0][part]["file"] = name
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    for read in (verify, Corpus):
        with pytest.raises(PrepareError, match=r"manifest\.json is damaged: `units\.0\." + expected[1:]):
            read(corpus)


def test_a_tokenizer_that_names_a_file_outside_the_corpus_is_refused(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["tokenizer"]["files"]["../../x"] = "0"
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PrepareError, match=r"`tokenizer\.files` names '\.\./\.\./x', expected the name of a file"):
        verify(corpus)
