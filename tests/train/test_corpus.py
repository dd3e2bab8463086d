import gc
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from durable.files import file_sha256
from tests.corpora import write_corpus
from train.corpus import check_fit, open_corpus
from train.errors import TrainError
from train.recipe import DataSection, ModelSection, Recipe

FITTING = Recipe(model=ModelSection(vocab_size=101), data=DataSection(sequence_length=32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_rows_come_in_the_order_asked_for_from_every_shard_and_batch(folder: Path) -> None:
    corpus = open_corpus(folder)
    everything = corpus.train.rows(np.arange(96, dtype=np.uint64))
    picked = np.array([95, 0, 31, 32, 33, 95], np.uint64)
    assert (corpus.train.rows(picked) == everything[picked.astype(int)]).all()
    assert (everything[:, 0] == 2).all()
    assert len({row.tobytes() for row in everything}) > 20


def test_shards_are_mapped_and_not_copied(folder: Path) -> None:
    blocks = open_corpus(folder).train._blocks
    assert all(not block.flags.owndata and not block.flags.writeable for block in blocks)


def bytes_read() -> int:
    """From disks, by this process so far."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text("utf-8").splitlines())
    return int(counts["read_bytes"])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_of_a_shard_the_pages_that_are_touched_are_read_and_no_others(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, train=4000, length=512, batch_rows=500)
    shard = folder / "train" / "data-00001-of-00003.arrow"
    descriptors = len(os.listdir("/proc/self/fd"))
    with shard.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = bytes_read()
    corpus = open_corpus(folder)
    corpus.train.rows(np.array([2000], np.uint64))
    assert bytes_read() - before < shard.stat().st_size / 4
    content = Path("/proc/self/smaps").read_text("utf-8").partition(str(shard))[2]
    assert "rr" in content.partition("VmFlags:")[2].partition("\n")[0].split()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_mapping_lasts_as_long_as_its_rows(folder: Path) -> None:
    corpus = open_corpus(folder)
    before = corpus.train.rows(np.arange(96, dtype=np.uint64))
    blocks = corpus.train._blocks
    del corpus
    gc.collect()
    assert (np.concatenate(blocks) == before).all()


def test_an_empty_shard_is_refused_in_one_line(folder: Path) -> None:
    (folder / "train" / "data-00001-of-00003.arrow").write_bytes(b"")
    manifest = json.loads((folder / "manifest.json").read_text())
    with pytest.raises(TrainError, match=r"data-00001-of-00003\.arrow is damaged: it has 0 bytes, the manifest says"):
        open_corpus(folder)
    manifest["splits"]["train"]["shards"][1]["bytes"] = 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match=r"data-00001-of-00003\.arrow is damaged: .*null or length 0"):
        open_corpus(folder)


def test_a_shard_without_rows_is_a_shard(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path, train=2, shards=5))
    assert len(corpus.train) == 2


def test_the_vocabulary_is_the_tokenizers(folder: Path) -> None:
    vocabulary = open_corpus(folder).vocabulary
    assert (vocabulary.size, vocabulary.mask_id, vocabulary.special_ids) == (101, 4, (0, 1, 2, 3, 4))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nowhere is not a folder"):
        open_corpus(tmp_path / "nowhere")


def test_a_folder_of_other_things_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"is not a corpus: it has no manifest\.json"):
        open_corpus(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "symbert corpus", "format_version": 2}'])
def test_a_manifest_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(TrainError, match=r"manifest\.json"):
        open_corpus(folder)


def test_a_manifest_without_a_key_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["corpus_hash"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match="corpus_hash"):
        open_corpus(folder)


def test_a_shard_cut_short_is_named(folder: Path) -> None:
    shard = folder / "train" / "data-00001-of-00003.arrow"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(TrainError, match=r"data-00001-of-00003\.arrow is damaged"):
        open_corpus(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "train" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(TrainError, match=r"data-00001-of-00003\.arrow is damaged: it is missing"):
        open_corpus(folder)


def test_a_flipped_bit_is_found_by_the_hashes(folder: Path) -> None:
    shard = folder / "train" / "data-00002-of-00003.arrow"
    content = bytearray(shard.read_bytes())
    content[-500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(TrainError, match=r"data-00002-of-00003\.arrow is damaged: its sha256"):
        open_corpus(folder).check_hashes()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("splits", "train", "shards", 0, "file"),
            "../x",
            r"`file` is '\.\./x', expected the name of a file inside the f",
        ),
        (("splits", "train", "shards", 0, "rows"), "9", "`rows` is '9', expected a valid integer"),
        (
            ("tokenizer", "files"),
            {"../x": ""},
            r"`files` names '\.\./x', expected the name of a file inside the folder",
        ),
    ],
)
def test_a_manifest_that_leads_out_of_the_corpus_or_does_not_fit_is_refused(
    folder: Path, place: tuple[str, ...], value: object, message: str
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    part = manifest
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match=rf"manifest\.json is damaged: {message}"):
        open_corpus(folder)


def test_a_manifest_whose_hash_is_not_that_of_its_shards_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match=r"manifest\.json is damaged: its corpus hash is not that of its shards"):
        open_corpus(folder)


def test_a_corpus_behind_a_url_is_refused_with_how_to_copy_it() -> None:
    with pytest.raises(TrainError, match="s3:/bucket/corpus is behind a URL, expected a folder") as refusal:
        open_corpus(Path("s3://bucket/corpus"))
    assert "aws s3 cp --recursive" in refusal.value.__notes__[0]


def test_a_corpus_without_its_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(TrainError, match="tokenizer.json is damaged: it is missing"):
        open_corpus(folder)


def test_another_tokenizer_in_the_folder_is_refused(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace("w17", "q17"))
    with pytest.raises(TrainError, match="not the tokenizer that the corpus was made with"):
        open_corpus(folder)


def listing_tokenizer(folder: Path) -> dict[str, str]:
    """Have the manifest list every file of the tokenizer, as `symbert prepare` does."""
    files = {path.name: file_sha256(path) for path in (folder / "tokenizer").iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["files"] = files
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return files


def test_any_damaged_file_of_the_tokenizer_is_refused(folder: Path) -> None:
    assert {"tokenizer.json", "tokenizer_config.json"} <= listing_tokenizer(folder).keys()
    open_corpus(folder)
    (folder / "tokenizer/tokenizer_config.json").write_text("{")
    with pytest.raises(
        TrainError, match=r"tokenizer_config\.json is damaged: it is not the tokenizer that the corpus was made with"
    ):
        open_corpus(folder)
    (folder / "tokenizer/tokenizer_config.json").unlink()
    with pytest.raises(TrainError, match=r"tokenizer_config\.json is damaged: it is missing"):
        open_corpus(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "its tokenizer's files are not those of its sha256"),
        ([], r"`files` is \[\], expected an object"),
    ],
)
def test_a_manifest_that_lists_no_such_tokenizer_is_refused(folder: Path, files: object, message: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["files"] = files
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match=message):
        open_corpus(folder)


def test_a_fitting_corpus_passes(folder: Path) -> None:
    check_fit(open_corpus(folder), FITTING)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(model=ModelSection(vocab_size=101)), "holds samples of 32 tokens, the recipe expects 512"),
        (Recipe(data=FITTING.data), "a tokenizer of 101 entries, the recipe's model has 30,522"),
    ],
)
def test_a_corpus_of_another_shape_is_refused_with_what_to_set(folder: Path, recipe: Recipe, message: str) -> None:
    with pytest.raises(TrainError, match=message) as refusal:
        check_fit(open_corpus(folder), recipe)
    assert "--set " in refusal.value.__notes__[0]


@pytest.mark.parametrize(("counts", "message"), [((0, 4), "no training samples"), ((4, 0), "no validation samples")])
def test_an_empty_split_is_refused(tmp_path: Path, counts: tuple[int, int], message: str) -> None:
    corpus = open_corpus(write_corpus(tmp_path, train=counts[0], validation=counts[1]))
    with pytest.raises(TrainError, match=message):
        check_fit(corpus, FITTING)
