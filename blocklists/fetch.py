"""Download the UT1 lists, pin them in a lock file, and keep the last good copy until a better one is whole.

The archive is hostile until read: https only, redirects included; bytes are counted before and after
decompression; members are read one by one and written under names of our own making, never extracted.
"""

import hashlib
import http.client
import lzma
import re
import ssl
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from blocklists.errors import BlocklistError
from blocklists.lock import LOCK_NAME, lock_of
from blocklists.ut1 import list_names
from durable.errors import with_hint
from durable.files import READ_SIZE, partial_name, whole_folder, write_json
from durable.progress import ProgressCallback, silent

SOURCES = {
    "university": "https://dsi.ut-capitole.fr/blacklists/download/blacklists.tar.gz",
    "github": "https://github.com/olbat/ut1-blacklists/archive/refs/heads/master.tar.gz",
}
"""The university's own archive, and a daily mirror of it."""

MOST_BYTES = 1 << 30
"""Of the archive; its lists may take eight times as much. In 2025 the university's archive had about 30 MB."""
MOST_EXPANSION = 8
SECONDS_OF_SILENCE = 60
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LIST_FILE = re.compile(r"(?:domains|urls)(?:\.gz|\.\d+)?|usage|expressions")


@dataclass
class _Members:
    """What the archive at `source` holds: bytes written so far, links between categories, members left unread."""

    source: str
    written: int = 0
    links: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


def fetch(
    url: str,
    out: Path,
    *,
    sha256: str | None = None,
    most_bytes: int = MOST_BYTES,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Replace the folder `out` by the lists of the archive at `url`; returns the lock file's content.

    Raises BlocklistError, and leaves `out` as it was, if the download fails, is larger than `most_bytes`, is not
    the archive of `sha256`, or holds no lists; or if `out` holds something that was not fetched.
    """
    if out.exists() and not (out / LOCK_NAME).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise with_hint(
            BlocklistError(f"{out} exists and was not made by `symbert blocklists fetch`"), "give another --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    archive = partial_name(out.with_name(f"{out.name}.tar"))
    try:
        with archive.open("xb") as file:
            facts = _download(url, file, most_bytes, progress)
        if sha256 is not None and facts["archive_sha256"] != sha256.lower():
            raise BlocklistError(f"{url} has the sha256 {facts['archive_sha256']}, expected {sha256.lower()}")
        with whole_folder(out, name="blocklists") as folder:
            members = _unpack(archive, url, folder, most_bytes * MOST_EXPANSION)
            lock = {**facts, "members_skipped": members.skipped, **lock_of(folder)}
            write_json(folder / LOCK_NAME, lock)
    finally:
        archive.unlink(missing_ok=True)
    return lock


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise BlocklistError(f"{url} is not an https address; lists are fetched by https only")


def _download(url: str, file: BinaryIO, most_bytes: int, progress: ProgressCallback) -> dict[str, Any]:
    _require_https(url)
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(https, _OnlyHttps)
    try:
        with opener.open(url, timeout=SECONDS_OF_SILENCE) as answer:
            announced = answer.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdecimal() else None
            digest, size = _copy(answer.read, file, most_bytes, lambda done: progress(done, total, {}), url)
            modified = answer.headers.get("Last-Modified")
    except urllib.error.HTTPError as error:
        raise BlocklistError(f"{url} answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise BlocklistError(f"{url} could not be read: {getattr(error, 'reason', error)}") from None
    if total is not None and size != total:
        raise BlocklistError(f"{url} broke off after {size:,} of {total:,} bytes")
    return {
        "source": url,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "last_modified": modified,
        "archive_bytes": size,
        "archive_sha256": digest,
    }


def _copy(
    read: Callable[[int], bytes], file: BinaryIO, most_bytes: int, tell: Callable[[int], None], what: str
) -> tuple[str, int]:
    """Copy until the end; returns sha256 and size. Raises BlocklistError past `most_bytes`."""
    digest, size = hashlib.sha256(), 0
    while block := read(READ_SIZE):
        size += len(block)
        if size > most_bytes:
            raise with_hint(BlocklistError(f"{what} holds more than {most_bytes:,} bytes"), "raise --max-megabytes")
        digest.update(block)
        file.write(block)
        tell(size)
    return digest.hexdigest(), size


def _unpack(archive: Path, url: str, folder: Path, most_bytes: int) -> _Members:
    members = _Members(url)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _take(tar, member, folder, most_bytes, members)
            # To its end, where the checksum of the compressed stream is.
            while tar.fileobj is not None and tar.fileobj.read(READ_SIZE):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BlocklistError(f"{url} is not a whole tar archive: {error}") from None
    for link, target in members.links.items():
        if (folder / target).is_dir() and not (folder / link).exists():
            (folder / link).symlink_to(target)
    if not any(list_names(path) for path in folder.iterdir()):
        raise BlocklistError(f"{url} holds no lists, expected files such as blacklists/adult/domains")
    return members


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, most_bytes: int, members: _Members) -> None:
    """Write one member under `folder/category/name` if it is a list; remember it if it is a category's second name."""
    path = PurePosixPath(member.name)
    if member.issym() and _PLAIN_NAME.fullmatch(path.name):
        target = PurePosixPath(member.linkname).name
        if _PLAIN_NAME.fullmatch(target):
            members.links[path.name] = target
        return
    if member.isdir():
        return
    category = path.parent.name
    if not (member.isreg() and _LIST_FILE.fullmatch(path.name) and _PLAIN_NAME.fullmatch(category)):
        members.skipped += 1
        return
    content = tar.extractfile(member)
    assert content is not None
    target_file = folder / category / path.name
    target_file.parent.mkdir(exist_ok=True)
    with target_file.open("wb") as file:
        left = most_bytes - members.written
        members.written += _copy(content.read, file, left, lambda _: None, f"the archive at {members.source}")[1]
