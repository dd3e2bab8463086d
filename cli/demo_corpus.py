"""Texts as OSCAR 23.01 would hold them: the same records, shards and names, and a blocklist in UT1's layout.

Nothing was crawled, so what a crawl would tell is told as far as it is true: sizes and digests are the content's own,
the date is one fixed day, record ids follow from the module's name, the language is known and not identified, and
nothing scored the text: `harmful_pp` and `tlsh` are null. The quality warnings are computed.
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cli.demo_documentation import PAGES, Text
from durable.files import file_sha256, whole_folder
from oscar_prep.quality_warnings import quality_warnings

SHARDS = 4
DATE = "2023-01-01T00:00:00Z"
CATEGORY = "demo"
# Arbitrary, so that the lists have something to do: one host, and one page of another.
BLOCKED_HOST = "github.com"
BLOCKED_PAGE = f"{PAGES}/nntplib.html"


def write_corpus(texts: Sequence[Text], folder: Path) -> None:
    """Write `en_meta_part_1.jsonl.zst` and so on, with their `checksum.sha256`, whole or not at all."""
    contents = ["\n".join(text.paragraphs) for text in texts]
    warnings = quality_warnings(pa.array(contents, pa.large_string())).to_pylist()
    records = [_record(*document) for document in zip(texts, contents, warnings, strict=True)]
    with whole_folder(folder, name="demo-corpus") as partial:
        sums = []
        for number in range(SHARDS):
            path = partial / f"en_meta_part_{number + 1}.jsonl.zst"
            with pa.CompressedOutputStream(str(path), "zstd") as stream:
                for record in records[number::SHARDS]:
                    stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            sums.append(f"{file_sha256(path)}  {path.name}\n")
        (partial / "checksum.sha256").write_text("".join(sums), "ascii")


def write_blocklists(folder: Path) -> None:
    """Write `demo/domains` and `demo/urls` as the UT1 lists have them: a host a line, an address without scheme."""
    with whole_folder(folder, name="demo-blocklists") as partial:
        (partial / CATEGORY).mkdir()
        (partial / CATEGORY / "domains").write_text(f"{BLOCKED_HOST}\n", "ascii")
        (partial / CATEGORY / "urls").write_text(f"{BLOCKED_PAGE.removeprefix('https://')}\n", "ascii")


def _record(text: Text, content: str, warnings: list[str] | None) -> dict[str, Any]:
    language = {"label": "en", "prob": 1.0}
    encoded = content.encode()
    return {
        "content": content,
        "warc_headers": {
            "warc-record-id": _record_id(text.module),
            "warc-date": DATE,
            "content-type": "text/plain",
            "content-length": str(len(encoded)),
            "warc-type": "conversion",
            "warc-identified-content-language": "eng",
            "warc-refers-to": _record_id(text.url),
            "warc-target-uri": text.url,
            "warc-block-digest": "sha1:" + base64.b32encode(hashlib.sha1(encoded).digest()).decode(),
        },
        "metadata": {
            "identification": language,
            "harmful_pp": None,
            "tlsh": None,
            "quality_warnings": warnings,
            "categories": None,
            "sentence_identifications": [language] * len(text.paragraphs),
        },
    }


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>"
