"""Whole corpora: by any number of workers, in one go or several, whole or refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from durable.errors import DurableError
from durable.locks import folder_lock
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.verify import verify

Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    """Three files of 40, 20 and 60 documents, a quarter of which are dropped."""
    number = 0
    for part, size in enumerate((40, 20, 60), start=1):
        records = []
        for _ in range(size):
            text = " ".join(["the quick brown fox jumps"] * (number % 7))
            records.append(oscar(text, number, categories=["adult"] if number % 4 == 0 else None))
            number += 1
        write_shard(tmp_path / f"in/part_{part}.jsonl.zst", records)
    return tmp_path / "in"


@pytest.fixture
def make(tokenizer: CorpusTokenizer) -> Make:
    """Prepares a corpus; keywords are settings."""

    def run(inputs: Path, out: Path, running: Running = Running(), **settings: Any) -> dict[str, Any]:  # noqa: B008
        chosen = {"sequence_length": 16, "validation_samples": 3, "validation_share": 0.3, **settings}
        plan = Plan(out, tuple(discover([inputs]).files), tokenizer, Configuration(**chosen))
        manifest = prepare(plan, running)
        assert manifest is not None
        return manifest

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".symbert.lock" and ".status" not in path.parts
    }


def test_the_corpus_opens_in_datasets_and_its_tokenizer_in_transformers(
    tmp_path: Path, inputs: Path, make: Make
) -> None:
    manifest = make(inputs, tmp_path / "out")
    opened = datasets.load_from_disk(str(tmp_path / "out"))
    assert {name: len(split) for name, split in opened.items()} == {
        "train": manifest["ledger"]["samples"]["train"], "validation": 3,
    }  # fmt: skip
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    assert tokenizer.mask_token_id == manifest["tokenizer"]["special_tokens"]["mask_token"]["id"]
    first = opened["train"][0]["input_ids"]
    assert tokenizer.decode(first).startswith("[CLS] the quick brown fox jump")


def test_the_ledger_is_the_sum_of_its_units_and_closes(tmp_path: Path, inputs: Path, make: Make) -> None:
    manifest = make(inputs, tmp_path / "out")
    ledger = manifest["ledger"]
    assert (ledger["documents"], ledger["kept"], ledger["dropped"]["blocklist"]) == (120, 90, 30)
    assert [unit["ledger"]["documents"] for unit in manifest["units"]] == [40, 20, 60]
    assert ledger["tokens"] == 16 * sum(ledger["samples"].values()) + ledger["tail"]
    assert ledger["samples"]["validation"] == manifest["splits"]["validation"]["rows"] == 3
    assert ledger["samples"]["surplus"] > 0
    assert verify(tmp_path / "out") == []


def test_any_number_of_workers_makes_the_same_bytes(tmp_path: Path, inputs: Path, make: Make) -> None:
    make(inputs, tmp_path / "one")
    make(inputs, tmp_path / "three", Running(workers=3))
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ({"max_documents": 37}, 1),
        ({"max_tokens": 700}, 3),
        pytest.param({"max_documents": 45}, 1, marks=pytest.mark.slow),
        pytest.param({"max_documents": 45}, 3, marks=pytest.mark.slow),
        pytest.param({"max_documents": 37}, 3, marks=pytest.mark.slow),
        pytest.param({"max_tokens": 700}, 1, marks=pytest.mark.slow),
    ],
)
def test_a_budget_keeps_exactly_the_first_documents_in_file_order(
    tmp_path: Path, inputs: Path, make: Make, settings: dict[str, int], workers: int
) -> None:
    manifest = make(inputs, tmp_path / "out", Running(workers=workers), validation_samples=0, **settings)
    whole = make(inputs, tmp_path / "whole", validation_samples=0)
    kept, tokens = 0, 0
    lengths = [2 + 5 * (number % 7) + (number % 7) for number in range(120) if number % 4]  # jumps = jump ##s
    for length in lengths:
        kept, tokens = kept + 1, tokens + length
        if kept == settings.get("max_documents") or tokens >= settings.get("max_tokens", 10**9):
            break
    assert (manifest["ledger"]["kept"], manifest["ledger"]["tokens"]) == (kept, tokens)
    assert manifest["unread"] == [file["file"] for file in whole["units"][len(manifest["units"]) :]]
    cut, full = (samples(tmp_path / name) for name in ("out", "whole"))
    for index, unit in enumerate(manifest["units"]):
        assert (cut[index] == full[index][: len(cut[index])]).all(), unit["file"]
    assert verify(tmp_path / "out") == []
    assert len(list((tmp_path / "out/documents").iterdir())) == len(manifest["units"])


def samples(corpus: Path) -> list[np.ndarray]:
    from oscar_prep.shards import read_rows

    manifest = json.loads((corpus / "manifest.json").read_text())
    return [
        np.concatenate([np.empty((0, 16), np.uint16), *read_rows(corpus / shard["file"], 16)])
        for shard in manifest["splits"]["train"]["shards"]
    ]


def test_running_again_makes_nothing_anew_and_changes_nothing(tmp_path: Path, inputs: Path, make: Make) -> None:
    first = make(inputs, tmp_path / "out")
    before = contents(tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/train").glob("*.arrow")}
    assert make(inputs, tmp_path / "out") == first
    assert contents(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_unit_that_is_missing_is_made_again(tmp_path: Path, inputs: Path, make: Make) -> None:
    make(inputs, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out/train/data-00001-of-00003.arrow").unlink()
    (tmp_path / "out/units/data-00002-of-00003.json").unlink()
    make(inputs, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_other_settings_for_the_same_folder_are_refused_with_the_difference(
    tmp_path: Path, inputs: Path, make: Make
) -> None:
    make(inputs, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(PrepareError, match=r"begun with other settings: configuration\.salt: 0 → 3\n") as error:
        make(inputs, tmp_path / "out", salt=3)
    assert error.value.__notes__ == ["give the same settings to continue, or another --out"]
    assert contents(tmp_path / "out") == before


def test_a_changed_input_is_refused(tmp_path: Path, inputs: Path, make: Make, oscar: Oscar, write_shard: Write) -> None:
    make(inputs, tmp_path / "out")
    write_shard(inputs / "part_2.jsonl.zst", [oscar("another text")])
    with pytest.raises(PrepareError, match=r"part_2\.jsonl\.zst has changed since this corpus was begun"):
        make(inputs, tmp_path / "out")


def test_a_folder_of_other_things_is_not_written_to(tmp_path: Path, inputs: Path, make: Make) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(PrepareError, match="is not empty and holds no corpus"):
        make(inputs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_folder_in_use_is_refused(tmp_path: Path, inputs: Path, make: Make) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(DurableError, match="is in use by process"):
        make(inputs, tmp_path / "out")


def test_a_damaged_file_is_named_and_the_others_are_kept_for_the_next_run(
    tmp_path: Path, inputs: Path, make: Make
) -> None:
    whole = (inputs / "part_3.jsonl.zst").read_bytes()
    (inputs / "part_3.jsonl.zst").write_bytes(whole[:-5])
    with pytest.raises(PrepareError, match=r"part_3\.jsonl\.zst is damaged: it is cut short"):
        make(inputs, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    assert len(list((tmp_path / "out/train").glob("*.arrow"))) == 2
    (inputs / "part_3.jsonl.zst").write_bytes(whole)
    make(inputs, tmp_path / "out")
    make(inputs, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_too_many_broken_lines_are_refused_and_fewer_are_put_aside(
    tmp_path: Path, inputs: Path, make: Make, write_shard: Write
) -> None:
    write_shard(inputs / "part_4.jsonl", [b"{broken", b"null"])
    with pytest.raises(PrepareError, match=r"2 of 122 lines are no documents, more than the share of 0\.001") as error:
        make(inputs, tmp_path / "out")
    assert "the first is part_4.jsonl line 1: JSON is malformed: object keys must be strings" in str(error.value)
    assert str(tmp_path / "out" / "quarantine") in error.value.__notes__[0]
    assert not (tmp_path / "out/manifest.json").exists()
    manifest = make(inputs, tmp_path / "out", Running(max_bad_share=0.02))
    assert manifest["ledger"]["invalid"] == 2
    assert verify(tmp_path / "out") == []


def test_a_corpus_without_a_sample_is_refused(tmp_path: Path, inputs: Path, make: Make) -> None:
    with pytest.raises(PrepareError, match="no training sample: 0 of 120 documents were kept"):
        make(inputs, tmp_path / "out", harmful_pp=(1000.0, 2000.0))
    with pytest.raises(PrepareError, match="no validation sample: --validation-share 1e-09 is too small"):
        make(inputs, tmp_path / "other", validation_share=1e-9)
    assert not list(tmp_path.glob("o*/manifest.json"))


def test_an_input_of_which_no_sample_can_be_made_leaves_no_folder(
    tmp_path: Path, inputs: Path, make: Make, write_shard: Write
) -> None:
    with pytest.raises(PrepareError, match="no training sample: 0 of 120 documents"):
        make(inputs, tmp_path / "out", harmful_pp=(1000.0, 2000.0))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(PrepareError, match="the input holds no document"):
        make(tmp_path / "empty.jsonl", tmp_path / "out")
    path = write_shard(tmp_path / "text.jsonl", [{"text": "the fox"}] * 3)
    with pytest.raises(
        PrepareError, match="3 of 3 lines are no documents.*line 1: Object missing required field `content`"
    ) as error:
        make(path, tmp_path / "out")
    assert error.value.__notes__[0].endswith("""; the line begins '{"text": "the fox"}'""")
    (tmp_path / "cut.jsonl.zst").write_bytes((inputs / "part_1.jsonl.zst").read_bytes()[:-5])
    with pytest.raises(PrepareError, match="it is cut short"):
        make(tmp_path / "cut.jsonl.zst", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refusal_keeps_what_was_in_the_folder_before_and_the_units_of_earlier_runs(
    tmp_path: Path, inputs: Path, make: Make
) -> None:
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out"), pytest.raises(DurableError, match="in use"):
        make(inputs, tmp_path / "out", harmful_pp=(1000.0, 2000.0))
    with pytest.raises(PrepareError, match="no training sample"):
        make(inputs, tmp_path / "out", harmful_pp=(1000.0, 2000.0))
    make(inputs, tmp_path / "out")
    before = contents(tmp_path / "out")
    for path in inputs.iterdir():
        path.write_bytes(b"")
    with pytest.raises(PrepareError, match="has changed since this corpus was begun"):
        make(inputs, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def damages(corpus: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    shard, other = corpus / "train/data-00000-of-00003.arrow", corpus / "train/data-00002-of-00003.arrow"
    parquet = corpus / "documents/data-00001-of-00003.parquet"

    def flip() -> None:
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)

    def swap() -> None:
        shard.rename(corpus / "train/x")
        other.rename(shard)
        (corpus / "train/x").rename(other)

    yield "train/data-00000-of-00003.arrow", lambda: shard.write_bytes(shard.read_bytes()[:-8])
    yield "train/data-00000-of-00003.arrow", flip
    yield "train/data-00002-of-00003.arrow", swap
    yield "train/data-00002-of-00003.arrow", other.unlink
    yield "documents/data-00001-of-00003.parquet", parquet.unlink
    yield "train/state.json", (corpus / "train/state.json").unlink
    yield "dataset_dict.json", lambda: (corpus / "dataset_dict.json").write_text('{"splits": ["train"]}')
    yield "tokenizer/tokenizer.json", lambda: (corpus / "tokenizer/tokenizer.json").write_text("{}")
    yield "train/data-9.arrow", lambda: shutil.copy(shard, corpus / "train/data-9.arrow")
    yield "manifest.json", lambda: edit(corpus / "manifest.json", '"kept": 90', '"kept": 91')
    yield "manifest.json", lambda: edit(corpus / "manifest.json", '"corpus_hash": "', '"corpus_hash": "0')


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_verify_finds_every_damage_and_names_it(tmp_path: Path, inputs: Path, make: Make) -> None:
    make(inputs, tmp_path / "whole")
    (tmp_path / "whole/train/cache-0123.arrow").touch()
    assert verify(tmp_path / "whole") == []
    for index in range(len(list(damages(tmp_path / "whole")))):
        corpus = tmp_path / f"damaged-{index}"
        shutil.copytree(tmp_path / "whole", corpus)
        name, damage = list(damages(corpus))[index]
        damage()
        assert name in {found.file for found in verify(corpus)}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda folder: (folder / "tokenizer_config.json").write_text("{"),
            "its sha256 is not the one in the manifest",
        ),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "missing"),
        (lambda folder: (folder / "added_tokens.json").write_text('{"quick": 3}'), "not in the manifest"),
        (lambda folder: (folder / "vocab.txt").write_text(""), "its sha256 is not the one in the manifest"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "missing"),
    ],
)
def test_verify_finds_every_damage_to_the_tokenizer(
    tmp_path: Path, inputs: Path, tokenizer_folder: Path, damage: Callable[[Path], None], problem: str
) -> None:
    given = shutil.copytree(tokenizer_folder, tmp_path / "given")
    (given / "vocab.txt").write_text("[PAD]\n")
    plan = Plan(
        tmp_path / "out", tuple(discover([inputs]).files), CorpusTokenizer.find(str(given)),
        Configuration(sequence_length=16, validation_samples=3, validation_share=0.3),
    )  # fmt: skip
    assert prepare(plan, Running()) is not None
    assert verify(plan.out) == []
    before = contents(plan.out)
    damage(plan.out / "tokenizer")
    (changed,) = {name for name, _ in contents(plan.out).items() ^ before.items()}
    assert [(found.file, found.problem) for found in verify(plan.out)] == [(changed, problem)]


def test_verify_wants_the_listed_tokenizer_to_be_the_one_of_the_hash(tmp_path: Path, inputs: Path, make: Make) -> None:
    manifest = make(inputs, tmp_path / "out")
    manifest["tokenizer"]["files"]["tokenizer.json"] = "0" * 64
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    (found,) = verify(tmp_path / "out")
    assert (found.file, found.problem) == ("manifest.json", "the tokenizer's files are not those of its sha256")


def test_a_manifest_that_does_not_list_the_tokenizers_files_vouches_for_its_words_alone(
    tmp_path: Path, inputs: Path, make: Make
) -> None:
    manifest = make(inputs, tmp_path / "out")
    del manifest["tokenizer"]["files"]
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "out/tokenizer/tokenizer_config.json").write_text("{}")
    assert verify(tmp_path / "out") == []
    (tmp_path / "out/tokenizer/tokenizer.json").write_text("{}")
    assert [found.file for found in verify(tmp_path / "out")] == ["tokenizer/tokenizer.json"]


def test_verify_wants_a_finished_corpus(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="absent does not exist"):
        verify(tmp_path / "absent")
    with pytest.raises(PrepareError, match=r"is no corpus: it holds no manifest\.json\n") as error:
        verify(tmp_path)
    assert error.value.__notes__ == ["give the folder that `symbert prepare` was given as --out"]
    (tmp_path / "units").mkdir()
    (tmp_path / "units/configuration.json").write_text("{}")
    with pytest.raises(
        PrepareError, match=r"is a corpus that is not finished: it holds no manifest\.json yet"
    ) as error:
        verify(tmp_path)
    assert error.value.__notes__ == ["run `symbert prepare` again with the same settings to finish it"]
