"""Reading a packed corpus: memory-mapped Arrow shards, their manifest and their tokenizer.

    CORPUS/manifest.json            rows and sha256 of every shard, configuration, hashes
    CORPUS/train/*.arrow            Arrow IPC streams of one column, input_ids: fixed_size_list<uint16|int32>[L]
    CORPUS/validation/*.arrow
    CORPUS/tokenizer/               its files are the manifest's

Rows are read where they lie: a shard is mapped, never loaded, and only the rows of a batch are read and copied.
"""

import ctypes
import hashlib
import json
import mmap
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from durable.checked import NameInside, Shape, checked
from durable.errors import with_hint
from durable.failpoints import failpoint
from durable.files import file_sha256
from durable.signals import StopRequest
from train.data import Ids, Vocabulary, Words
from train.errors import TrainError
from train.recipe import Recipe

MANIFEST, FORMAT, FORMAT_VERSION = "manifest.json", "symbert corpus", 1
TOKENIZER_FILE = "tokenizer.json"
SPLITS = ("train", "validation")
VERIFY = "`symbert verify` lists all damage; the command that made the corpus, run again, makes anew what is damaged"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib makes one slash of two


class _Listed(Shape):
    """A shard as the manifest lists it."""

    file: NameInside
    rows: int
    bytes: int
    sha256: str


class _Tokenizer(Shape):
    sha256: str
    files: dict[NameInside, str] | None = None
    """A manifest that an older symbert wrote names tokenizer.json alone."""


@dataclass(frozen=True)
class Shard:
    """One Arrow file and what the manifest says of it."""

    path: Path
    rows: int
    size: int
    sha256: str


class Split:
    """The rows of one split over all of its shards, by number."""

    def __init__(self, shards: list[Shard], length: int) -> None:
        self._length = length
        self._blocks = [block for shard in shards for block in _blocks(shard, length)]
        self._starts = np.cumsum([0, *map(len, self._blocks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, numbers: Words) -> Ids:
        """The tokens (N, L) of these rows, in this order."""
        tokens_NL = np.empty((len(numbers), self._length), np.int64)
        blocks = np.searchsorted(self._starts, numbers, side="right") - 1
        for place, (number, block) in enumerate(zip(numbers, blocks, strict=True)):
            tokens_NL[place] = self._blocks[block][int(number) - self._starts[block]]
        return tokens_NL


@dataclass(frozen=True)
class Corpus:
    """A corpus folder that has been opened and has the shape that its manifest says."""

    folder: Path
    corpus_hash: str
    tokenizer_hash: str
    manifest_hash: str
    sequence_length: int
    vocabulary: Vocabulary
    shards: tuple[Shard, ...]
    train: Split
    validation: Split

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    def check_hashes(self, stop: StopRequest | None = None) -> None:
        """Read every shard once. Raises TrainError, naming the file, if its bytes are not the manifest's.

        Raises UnfinishedError, or KeyboardInterrupt, between two shards if a signal has asked to stop.
        """
        for shard in self.shards:
            failpoint("corpus.before-shard")
            if stop is not None:
                stop.raise_if_requested(f"{self.folder} was still being checked, and nothing has been written")
            if file_sha256(shard.path) != shard.sha256:
                raise _damaged(shard.path, "its sha256 is not the manifest's")


def open_corpus(folder: Path) -> Corpus:
    """Open a corpus. Raises TrainError if it is none, or if tokenizer, sizes, rows or hash are not the manifest's."""
    manifest = _manifest(folder)
    try:
        length, tokenizer = manifest["sequence_length"], manifest["tokenizer"]
        shards = {name: _shards(folder, manifest["splits"].get(name, {"shards": []})) for name in SPLITS}
        named = checked(_Tokenizer, tokenizer, folder / MANIFEST, TrainError, VERIFY)
        files = {TOKENIZER_FILE: named.sha256} if named.files is None else named.files
        corpus = Corpus(
            folder=folder,
            corpus_hash=manifest["corpus_hash"],
            tokenizer_hash=tokenizer["sha256"],
            manifest_hash=file_sha256(folder / MANIFEST),
            sequence_length=length,
            vocabulary=_vocabulary(tokenizer),
            shards=(*shards["train"], *shards["validation"]),
            train=Split(shards["train"], length),
            validation=Split(shards["validation"], length),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainError(
            f"{folder / MANIFEST} is not a manifest of format version {FORMAT_VERSION}: {error!r}"
        ) from None
    if _hash_of(corpus.shards) != corpus.corpus_hash:
        raise _damaged(folder / MANIFEST, "its corpus hash is not that of its shards")
    _check_tokenizer(corpus, files)
    return corpus


def check_fit(corpus: Corpus, recipe: Recipe) -> None:
    """Raise TrainError if the corpus is not what the recipe's model is for, or has nothing to train on."""
    if corpus.sequence_length != recipe.data.sequence_length:
        raise with_hint(
            TrainError(
                f"{corpus.folder} holds samples of {corpus.sequence_length} tokens, "
                f"the recipe expects {recipe.data.sequence_length}"
            ),
            f"--set data.sequence_length={corpus.sequence_length}, or prepare the corpus with "
            f"--sequence-length {recipe.data.sequence_length}",
        )
    if corpus.vocabulary.size != recipe.model.vocab_size:
        raise with_hint(
            TrainError(
                f"{corpus.folder} was made with a tokenizer of {corpus.vocabulary.size:,} entries, "
                f"the recipe's model has {recipe.model.vocab_size:,}"
            ),
            f"--set model.vocab_size={corpus.vocabulary.size}, or prepare the corpus with the model's tokenizer",
        )
    if not len(corpus.train):
        raise TrainError(f"{corpus.folder} has no training samples")
    if not len(corpus.validation):
        raise with_hint(
            TrainError(f"{corpus.folder} has no validation samples to evaluate on"),
            "prepare the corpus again with --validation-samples above 0",
        )


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        if URL.match(str(folder)):
            raise with_hint(
                TrainError(f"{folder} is behind a URL, expected a folder: training maps the corpus into memory"),
                "copy it first, as with `aws s3 cp --recursive`, and give the copy; `symbert verify` checks it",
            )
        raise with_hint(TrainError(f"{folder} is not a folder"), "make a corpus with `symbert prepare`")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        raise with_hint(
            TrainError(f"{folder} is not a corpus: it has no {MANIFEST}"),
            "make a corpus with `symbert prepare`; an unfinished one has no manifest yet",
        ) from None
    except ValueError as error:
        raise TrainError(f"{folder / MANIFEST} is damaged: {error}") from None
    found = (manifest.get("format"), manifest.get("format_version")) if isinstance(manifest, dict) else (None, None)
    if found != (FORMAT, FORMAT_VERSION):
        raise TrainError(
            f"{folder / MANIFEST} has format {found[0]!r}, version {found[1]!r}; "
            f"expected {FORMAT!r}, version {FORMAT_VERSION}"
        )
    return manifest


def _check_tokenizer(corpus: Corpus, files: dict[str, str]) -> None:
    """Refuse a tokenizer folder that is damaged: checkpoints get a copy of it."""
    if files.get(TOKENIZER_FILE) != corpus.tokenizer_hash:
        raise _damaged(corpus.folder / MANIFEST, "its tokenizer's files are not those of its sha256")
    for name, sha256 in files.items():
        if not (corpus.tokenizer / name).is_file():
            raise _damaged(corpus.tokenizer / name, "it is missing")
        if file_sha256(corpus.tokenizer / name) != sha256:
            raise _damaged(corpus.tokenizer / name, "it is not the tokenizer that the corpus was made with")


def _hash_of(shards: Iterable[Shard]) -> str:
    """The corpus hash: sha256 over the hexadecimal sha256 of every shard, train then validation, as listed."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode("ascii")).hexdigest()


def _vocabulary(tokenizer: dict[str, Any]) -> Vocabulary:
    special = {name: token["id"] for name, token in tokenizer["special_tokens"].items()}
    return Vocabulary(tokenizer["vocabulary_size"], special["mask_token"], tuple(sorted(special.values())))


def _shards(folder: Path, split: dict[str, Any]) -> list[Shard]:
    listed = [checked(_Listed, entry, folder / MANIFEST, TrainError, VERIFY) for entry in split["shards"]]
    return [Shard(folder / entry.file, entry.rows, entry.bytes, entry.sha256) for entry in listed]


def _blocks(shard: Shard, length: int) -> list[npt.NDArray[Any]]:
    """Each record batch as an array (rows, L) over the mapped file."""
    if not shard.path.is_file():
        raise _damaged(shard.path, "it is missing")
    if shard.path.stat().st_size != shard.size:
        raise _damaged(shard.path, f"it has {shard.path.stat().st_size:,} bytes, the manifest says {shard.size:,}")
    try:
        with pa.ipc.open_stream(_mapped(shard.path)) as stream:
            columns = [batch.column("input_ids") for batch in stream]
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise _damaged(shard.path, str(error)) from None
    rows = sum(map(len, columns))
    if rows != shard.rows or any(column.type.list_size != length for column in columns):
        raise _damaged(shard.path, f"it has {rows:,} rows, the manifest says {shard.rows:,} of {length} tokens")
    return [column.flatten().to_numpy(zero_copy_only=True).reshape(-1, length) for column in columns]


def _mapped(path: Path) -> pa.Buffer:
    """The bytes of a file, of which the kernel reads the pages that are touched, and no others."""
    with pa.memory_map(str(path)) as file:
        # One byte, for Arrow has the kernel read all that it is asked for. Not Python's own mmap, which keeps a file
        # open for each mapping: a corpus may have thousands of shards.
        first = file.read_buffer(1)
        size = file.size()
    if (advice := getattr(mmap, "MADV_RANDOM", None)) is not None:  # else a row of one page brings 20 with it
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        advise(first.address, size, advice)
    return pa.foreign_buffer(first.address, size, base=first)


def _damaged(path: Path, why: str) -> TrainError:
    return with_hint(
        TrainError(f"{path} is damaged: {why}"),
        VERIFY,
    )
