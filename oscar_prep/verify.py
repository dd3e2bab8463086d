"""Is a corpus still what its manifest says? Every file hashed and counted again, every sum added up again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from durable.files import file_sha256
from durable.remote import Place
from oscar_prep.errors import PrepareError
from oscar_prep.ledger import Ledger
from oscar_prep.manifest import read_manifest, splits_of, total_of
from oscar_prep.plan import MANIFEST, TOKENIZER
from oscar_prep.record import UnitRecord
from oscar_prep.shapes import check_manifest
from oscar_prep.shards import FileRecord, corpus_hash, dataset_files, read_batches, read_json
from oscar_prep.tokenizer import FILES, TOKENIZER_FILE


@dataclass(frozen=True)
class Damage:
    """Something that is not as the manifest says."""

    file: str
    problem: str


def verify(corpus: Place) -> list[Damage]:
    """Everything that is wrong with a corpus folder, here or behind a URL; empty if nothing is.

    Files that `Dataset.map` leaves (cache-*.arrow) and other files that the manifest does not list are nobody's
    business, but a shard that is not listed is reported. Raises PrepareError if there is no whole manifest to
    compare with.
    """
    manifest = read_manifest(corpus)
    check_manifest(manifest, corpus / MANIFEST)
    return list(_damage(corpus, manifest, [UnitRecord.from_json(unit) for unit in manifest["units"]]))


def _damage(corpus: Place, manifest: dict[str, Any], records: list[UnitRecord]) -> Iterator[Damage]:
    for record in records:
        for file in record.files():
            yield from _compare(corpus, file)
        yield from _closes(f"ledger of {record.file}", record.ledger, manifest["sequence_length"])
    total = Ledger.from_json(manifest["ledger"])
    yield from _closes("ledger", total, manifest["sequence_length"])
    if total.as_json() != total_of(records).as_json():
        yield Damage("manifest.json", "the ledger is not the sum of the units' ledgers")
    splits = splits_of(records)
    if corpus_hash(shard for shards in splits.values() for shard in shards) != manifest["corpus_hash"]:
        yield Damage("manifest.json", "the corpus hash is not that of the listed shards")
    for name, shards in splits.items():
        listed = manifest["splits"].get(name)
        if listed is None or listed["shards"] != [shard.as_json() for shard in shards]:
            yield Damage("manifest.json", f"the shards of {name} are not those of the units")
    dtype = np.dtype(manifest["splits"]["train"]["dtype"])
    for name, content in dataset_files(splits, manifest["sequence_length"], dtype).items():
        yield from _compare_json(corpus, name, content)
    yield from _compare_tokenizer(corpus, manifest["tokenizer"])
    yield from _unlisted(corpus, {file.file for record in records for file in record.files()})


def _compare(corpus: Place, file: FileRecord) -> Iterator[Damage]:
    path = corpus / file.file
    if not path.is_file():
        yield Damage(file.file, "missing")
        return
    size = path.stat().st_size
    if size != file.bytes:
        yield Damage(file.file, f"{size:,} bytes, expected {file.bytes:,}")
    elif file_sha256(path) != file.sha256:
        yield Damage(file.file, "its sha256 is not the one in the manifest")
    else:
        rows = _rows(path)
        if rows != file.rows:
            yield Damage(file.file, f"{rows} rows, expected {file.rows:,}")


def _rows(path: Place) -> int | str:
    try:
        if path.suffix == ".arrow":
            return sum(batch.num_rows for batch in read_batches(path))
        if path.suffix == ".parquet":
            with path.open("rb") as file:
                return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        return f"unreadable ({error})"
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _compare_json(corpus: Place, name: str, expected: Any) -> Iterator[Damage]:
    if not (corpus / name).is_file():
        yield Damage(name, "missing")
        return
    try:
        if read_json(corpus / name) != expected:
            yield Damage(name, "it does not list what the manifest lists")
    except PrepareError:
        yield Damage(name, "not JSON")


def _compare_tokenizer(corpus: Place, tokenizer: dict[str, Any]) -> Iterator[Damage]:
    sha256 = tokenizer["sha256"]
    listed = "files" in tokenizer  # a manifest that an older symbert wrote names tokenizer.json alone
    expected = tokenizer["files"] if listed else {TOKENIZER_FILE: sha256}
    if not isinstance(expected, dict) or expected.get(TOKENIZER_FILE) != sha256:
        yield Damage("manifest.json", "the tokenizer's files are not those of its sha256")
        return
    for name in sorted({*expected, *(FILES if listed else ())}):
        path = corpus / TOKENIZER / name
        if not path.is_file():
            if name in expected:
                yield Damage(f"{TOKENIZER}/{name}", "missing")
        elif name not in expected:
            yield Damage(f"{TOKENIZER}/{name}", "not in the manifest")
        elif file_sha256(path) != expected[name]:
            yield Damage(f"{TOKENIZER}/{name}", "its sha256 is not the one in the manifest")


def _closes(name: str, ledger: Ledger, sequence_length: int) -> Iterator[Damage]:
    try:
        ledger.check(sequence_length)
    except PrepareError as error:
        yield Damage("manifest.json", f"{name}: {error}")


def _unlisted(corpus: Place, listed: set[str]) -> Iterator[Damage]:
    for pattern in ("train/data-*.arrow", "validation/data-*.arrow", "documents/*.parquet", "quarantine/*.jsonl"):
        found: list[Place] = [*corpus.glob(pattern)]
        for path in sorted(found, key=str):
            name = f"{pattern.partition('/')[0]}/{path.name}"
            if name not in listed:
                yield Damage(name, "not in the manifest")
