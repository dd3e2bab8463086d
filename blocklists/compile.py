"""From the categories of a folder to the bytes of an index, the same bytes for the same lists.

Layout: magic, format version and header length (little-endian 32-bit), header (JSON, padded by spaces to a multiple
of 64 bytes); N sorted 64-bit hashes; N 16-bit numbers of category sets; a filter of a power of two of bits, at
least 8 an entry, in which bit (hash >> 64 − width) is set; the sha256 of all that. So 11 to 12 bytes an entry.
"""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocklists.canonical import canonical_batches
from blocklists.errors import BlocklistError
from blocklists.hashing import Hashes, hash_spans
from blocklists.lock import ATTRIBUTION, LICENCE, read_lock
from blocklists.ut1 import Category, read_folder
from durable.errors import with_hint
from durable.files import file_above, write_bytes

MAGIC = b"UT1index"
FORMAT = 1
PREFIX = struct.Struct("<8sII")
CHECKSUM_BYTES = hashlib.sha256().digest_size
ALIGNMENT = 64
MOST_SETS = 1 << 16
_SOURCE_FACTS = ("source", "fetched", "last_modified", "archive_sha256")


def compile_folder(folder: Path, wanted: Sequence[str] | None = None) -> bytes:
    """The index of a folder's lists, all or those of the `wanted` categories. Raises BlocklistError."""
    categories, aliases = read_folder(folder, wanted)
    lock = read_lock(folder)
    source = {key: lock[key] for key in _SOURCE_FACTS} if lock else None
    return compile_categories(categories, aliases, source)


def compile_to(folder: Path, out: Path, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """Write the index of a folder's lists to `out`, whole or not at all; returns its header.

    Raises BlocklistError, before it reads a list, if `out` is a folder or leads through a file.
    """
    if out.is_dir():
        raise with_hint(
            BlocklistError(f"{out} is a folder, expected the name of the index file"), f"--out {out / 'ut1.index'}"
        )
    if above := file_above(out):
        raise BlocklistError(f"{out} leads through {above}, which is a file")
    content = compile_folder(folder, wanted)
    write_bytes(out, content)
    return checked(memoryview(content), str(out))[0]


def compile_categories(
    categories: Sequence[Category], aliases: Mapping[str, str], source: Mapping[str, Any] | None = None
) -> bytes:
    """The index of categories. Raises BlocklistError where they hold no entry at all."""
    hashes, numbers, lists = [], [], {}
    for number, category in enumerate(categories):
        entries = {"hosts": _hashed_hosts(category), "addresses": _hashed_addresses(category)}
        for found in entries.values():
            hashes.append(found)
            numbers.append(np.full(len(found), number))
        lists[category.name] = {
            **{kind: len(found) for kind, found in entries.items()},
            "files": category.files,
            "oddities": dict(sorted(category.oddities.items())),
        }
    if not sum(map(len, hashes)):
        raise BlocklistError(f"the lists of {', '.join(lists) or 'no category'} hold no entry")
    sorted_hashes, set_numbers, sets = _in_sets(np.concatenate(hashes), np.concatenate(numbers), len(categories))
    width = max(8 * len(sorted_hashes) - 1, 7).bit_length()
    names = [category.name for category in categories]
    header = {
        "sha256": _identity([names, sets], sorted_hashes, set_numbers),
        "entries": len(sorted_hashes),
        "filter_width": width,
        "categories": names,
        "sets": sets,
        "aliases": dict(sorted(aliases.items())),
        "lists": lists,
        "source": source,
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
    }
    return _assembled(header, sorted_hashes, set_numbers, filter_of(sorted_hashes, width))


def checked(content: memoryview, where: str) -> tuple[dict[str, Any], int]:
    """An index's header, and where its hashes begin.

    Raises BlocklistError if `content` is no index, one of another format, or not as it was written.
    """
    if len(content) < PREFIX.size or content[: len(MAGIC)] != MAGIC:
        raise BlocklistError(f"{where} is not a blocklist index, expected a file made by `symbert blocklists compile`")
    _, version, length = PREFIX.unpack_from(content)
    if version != FORMAT:
        raise with_hint(
            BlocklistError(f"{where} is a blocklist index of format {version}, expected format {FORMAT}"),
            f"symbert blocklists compile FOLDER --out {where}",
        )
    if content[-CHECKSUM_BYTES:] != hashlib.sha256(content[:-CHECKSUM_BYTES]).digest():
        raise with_hint(
            BlocklistError(f"{where} is damaged: its checksum does not match"),
            f"symbert blocklists compile FOLDER --out {where}",
        )
    return json.loads(bytes(content[PREFIX.size : PREFIX.size + length])), PREFIX.size + length


def filter_of(hashes: Hashes, width: int) -> npt.NDArray[np.uint8]:
    """The filter of 2^width bits as bytes, lowest bit first."""
    bits = np.zeros(1 << width, bool)
    bits[(hashes >> np.uint64(64 - width)).astype(np.int64)] = True
    return np.packbits(bits, bitorder="little")


def _hashed_hosts(category: Category) -> Hashes:
    found = []
    # With its path spelled out an ordinary host is canonical already.
    for addresses in canonical_batches(_as_urls(entry.rstrip("/") + "/" for entry in category.hosts)):
        _count_refused(category.oddities, addresses.bad)
        found.append(hash_spans(addresses.text, addresses.host_start, addresses.host_end)[~addresses.bad])
    return _unique(found)


def _hashed_addresses(category: Category) -> Hashes:
    found = []
    for addresses in canonical_batches(_as_urls(category.addresses)):
        _count_refused(category.oddities, addresses.bad)
        found.append(hash_spans(addresses.text, addresses.start, addresses.end)[~addresses.bad])
    return _unique(found)


def _as_urls(entries: Iterable[str]) -> pa.Array:
    """Entries as URLs; a scheme put before them keeps `mailto:a` from being one."""
    return pa.array([entry if "://" in entry else f"https://{entry}" for entry in entries], pa.large_string())


def _count_refused(oddities: Counter[str], bad: npt.NDArray[np.bool_]) -> None:
    if bad.any():
        oddities["refused: no host"] += int(bad.sum())


def _unique(found: list[Hashes]) -> Hashes:
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def _in_sets(
    hashes: Hashes, numbers: npt.NDArray[np.int64], category_count: int
) -> tuple[Hashes, npt.NDArray[np.uint16], list[list[int]]]:
    """Each distinct hash once, sorted, with the number of the set of categories that hold it; and the sets."""
    order = np.argsort(hashes, kind="stable")
    hashes, numbers = hashes[order], numbers[order]
    first = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
    bits = np.zeros((len(numbers), -(-category_count // 64)), np.uint64)
    bits[np.arange(len(numbers)), numbers // 64] = np.uint64(1) << (numbers % 64).astype(np.uint64)
    masks, set_numbers = np.unique(np.bitwise_or.reduceat(bits, first, axis=0), axis=0, return_inverse=True)
    if len(masks) > MOST_SETS:
        raise BlocklistError(f"the lists overlap in {len(masks):,} different ways, at most {MOST_SETS:,} can be told")
    sets = [
        [number for number in range(category_count) if int(mask[number // 64]) >> number % 64 & 1] for mask in masks
    ]
    return hashes[first], set_numbers.reshape(-1).astype(np.uint16), sets


def _identity(names: Any, *sections: npt.NDArray[Any]) -> str:
    """The sha256 of what decides: not of when and where the lists were fetched, nor of how they were spelled."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for section in sections:
        digest.update(_little_endian(section))
    return digest.hexdigest()


def _little_endian(section: npt.NDArray[Any]) -> bytes:
    return section.astype(section.dtype.newbyteorder("<")).tobytes()


def _assembled(header: Mapping[str, Any], *sections: npt.NDArray[Any]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(PREFIX.size + len(text)) % ALIGNMENT)
    body = b"".join(map(_little_endian, sections))
    content = PREFIX.pack(MAGIC, FORMAT, len(text)) + text + body
    return content + hashlib.sha256(content).digest()
