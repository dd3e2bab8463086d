"""A corpus that is continued has the tokenizer that it was begun with, whatever became of the copy in its folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.slices import Slice
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import STATE, Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.slices import open_slices, prepare_slice
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.verify import verify

SHARD = "train/data-00001-of-00002.arrow"


@pytest.fixture
def plan(
    tmp_path: Path, tokenizer_folder: Path, oscar: Callable[..., Any], write_shard: Callable[[Path, list[Any]], Path]
) -> Plan:
    for part in range(2):
        records = [oscar("the quick brown fox " * (number % 5), 20 * part + number) for number in range(20)]
        write_shard(tmp_path / f"in/part_{part}.jsonl", records)
    given = shutil.copytree(tokenizer_folder, tmp_path / "given")
    (given / "vocab.txt").write_text("[PAD]\n")
    configuration = Configuration(sequence_length=16, validation_samples=0)
    files = discover([tmp_path / "in"]).files
    return Plan(tmp_path / "out", tuple(files), CorpusTokenizer.find(str(given)), configuration)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_settings(plan: Plan, **settings: Any) -> Plan:
    """The same corpus with a tokenizer of the same words and other settings."""
    other = shutil.copytree(plan.tokenizer.folder, plan.out.parent / "other", dirs_exist_ok=True)
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    return replace(plan, tokenizer=CorpusTokenizer.find(str(other)))


def written_by_an_older_symbert(plan: Plan) -> None:
    """Make the folder one whose state names tokenizer.json alone."""
    state = json.loads((plan.out / STATE).read_text())
    for name in ("tokenizer_files", "special_tokens"):
        del state[name]
    (plan.out / STATE).write_text(json.dumps(state))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"cls_token": "[PAD]"}, r"special_tokens\.cls_token\.token: '\[CLS\]' → '\[PAD\]'"),
        ({"do_lower_case": False}, r"tokenizer_files\.tokenizer_config\.json: '[0-9a-f]{64}' → '[0-9a-f]{64}'"),
    ],
)
def test_a_tokenizer_of_other_settings_is_refused_with_the_difference(
    plan: Plan, settings: dict[str, Any], difference: str, older: bool
) -> None:
    assert prepare(plan, Running())
    (plan.out / SHARD).unlink()
    if older:
        written_by_an_older_symbert(plan)
        difference = "tokenizer_files"
    before = contents(plan.out)
    with pytest.raises(PrepareError, match=f"begun with other settings: .*{difference}"):
        prepare(with_settings(plan, **settings), Running())
    assert contents(plan.out) == before


@pytest.mark.parametrize("older", [False, True])
def test_the_same_tokenizer_from_elsewhere_continues_the_corpus(plan: Plan, older: bool) -> None:
    assert prepare(plan, Running())
    before = contents(plan.out)
    (plan.out / SHARD).unlink()
    if older:
        written_by_an_older_symbert(plan)
        before[STATE] = (plan.out / STATE).read_bytes()
    own = CorpusTokenizer.find(str(plan.out / "tokenizer"))
    assert own.files == plan.tokenizer.files
    assert prepare(replace(plan, tokenizer=replace(own, name=plan.tokenizer.name)), Running())
    assert contents(plan.out) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer.json").write_bytes(
            (folder / "tokenizer.json").read_bytes().replace(b"quick", b"slow")
        ),
        lambda folder: (folder / "tokenizer_config.json").write_text("{"),
        lambda folder: (folder / "vocab.txt").unlink(),
        lambda folder: (folder / "added_tokens.json").write_text('{"quick": 3}'),
    ],
)
def test_a_copy_that_was_changed_is_written_again_before_anything_is_made_with_it(
    plan: Plan, damage: Callable[[Path], Any]
) -> None:
    assert prepare(plan, Running())
    whole = contents(plan.out)
    damage(plan.out / "tokenizer")
    (plan.out / SHARD).unlink()
    told: list[str] = []
    assert prepare(plan, Running(notice=told.append))
    assert contents(plan.out) == whole
    assert verify(plan.out) == []
    assert f"{plan.out / 'tokenizer'} was not the tokenizer of this corpus any more: it is written again" in told


def test_nothing_is_told_of_a_tokenizer_that_is_whole_or_new(plan: Plan) -> None:
    told: list[str] = []
    assert prepare(plan, Running(notice=told.append))
    assert prepare(plan, Running(notice=told.append))
    assert told == []


def test_a_slice_is_not_made_with_a_copy_that_was_changed(plan: Plan) -> None:
    assert open_slices(plan, 1) == [0]
    copy = plan.out / "tokenizer/tokenizer.json"
    copy.write_bytes(copy.read_bytes().replace(b"quick", b"slow"))
    with pytest.raises(PrepareError, match="tokenizer is not the tokenizer of this corpus any more"):
        prepare_slice(plan, Running(), Slice(0, 1))
    assert not (plan.out / "train").exists()
    told: list[str] = []
    assert open_slices(plan, 1, told.append) == [0]
    assert len(told) == 1
    assert prepare_slice(plan, Running(), Slice(0, 1)) == []
