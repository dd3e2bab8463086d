"""One spelling for all URLs that lead to the same page, for list entries and documents alike.

The spelling is WHATWG's (lower case, punycode, `%61`, `127.1`, `\\` as `/`, default ports), by can_ada, with two steps
more: a host loses its trailing dots, and user names and passwords are dropped. The address of a page ends before
its query, as in OSCAR's own matcher (ut1-rs), which compares scheme, host, port and path.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocklists.errors import BlocklistError
from durable.errors import with_hint

ROWS_AT_ONCE = 1 << 15
WORD = 8
"""A row's text may be read this many bytes past its end: `Addresses.text` is padded by as much."""

# `mailto:a@b` has a scheme and no host; `example.com:8080/a` only looks as if it had.
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(?:[/?#]|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=//)")
_SPECIAL = ("http:", "https:", "ftp:", "ws:", "wss:")

# What WHATWG's rules leave as it is. A label that starts with `xn--` would have to be checked, a last label that
# starts with a digit might be a number, and a segment that starts with `.` or `%` might be a dot segment: all
# these go the slow way, as do user names, ports, and every character that is not plain here.
_LABEL = (
    r"(?:[a-wyz0-9_][a-z0-9_-]*"
    r"|x(?:[a-mo-z0-9_][a-z0-9_-]*|-[a-z0-9_-]*|n(?:[a-z0-9_][a-z0-9_-]*|-(?:[a-z0-9_][a-z0-9_-]*)?)?)?)"
)
_LAST_LABEL = r"(?:[a-wyz][a-z0-9_-]*|x(?:[a-mo-z0-9_][a-z0-9_-]*)?)"
_PLAIN = r"A-Za-z0-9_~!$&()*+,;=:@\-"
_CANONICAL = rf"^https?://(?:{_LABEL}\.)*{_LAST_LABEL}(?:/(?:[{_PLAIN}][{_PLAIN}.%]*)?)+(?:[?#](?s:.*))?$"

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Address(NamedTuple):
    """Where a URL leads: `scheme`, host, port and path joined as `text`; `host` alone."""

    scheme: str
    host: str
    rest: str

    @property
    def text(self) -> str:
        """The address as the lists' exact entries are compared."""
        return f"{self.scheme}//{self.host}{self.rest}"


@dataclass(frozen=True)
class Addresses:
    """The addresses of N URLs as spans of one buffer; rows that are `bad` have empty spans.

    `text` holds ASCII bytes, padded by WORD; the other arrays have shape (N,).
    """

    text: Bytes
    start: Positions
    end: Positions
    host_start: Positions
    host_end: Positions
    bad: Mask


def canonical(url: str) -> Address | None:
    """The address that `url` leads to, or None if it leads to no host. A missing scheme is taken for https."""
    parsed = _parse(url)
    if parsed is None or not parsed.hostname:
        if _has_other_scheme(url):
            return None
        parsed = _parse(f"https://{url.strip().removeprefix('//')}")
    elif parsed.protocol not in _SPECIAL:
        # Hosts of unknown schemes are opaque to WHATWG: read as https's they get the spelling of the lists.
        parsed = _parse(_SCHEME.sub("https:", url.strip(), count=1))
    if parsed is None:
        return None
    host = parsed.hostname.rstrip(".")
    port = f":{parsed.port}" if parsed.port else ""
    return Address(parsed.protocol, host, port + parsed.pathname) if host else None


def canonical_batches(urls: pa.Array | pa.ChunkedArray) -> Iterator[Addresses]:
    """The addresses of an Arrow string array, nulls included, a bounded number of rows at a time."""
    chunks = urls.chunks if isinstance(urls, pa.ChunkedArray) else [urls]
    for chunk in chunks:
        for first in range(0, len(chunk), ROWS_AT_ONCE):
            yield _canonical_batch(chunk.slice(first, ROWS_AT_ONCE).cast(pa.large_string()))


def _canonical_batch(urls: pa.Array) -> Addresses:
    """Rows that are canonical already are taken as they are; the others are spelled anew behind them."""
    data = urls.buffers()[2]
    given = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    offsets = np.frombuffer(urls.buffers()[1], np.int64)[urls.offset : urls.offset + len(urls) + 1]
    given = given[offsets[0] : offsets[-1]]
    start, end = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
    plain = pc.fill_null(pc.match_substring_regex(urls, _CANONICAL), False).to_numpy(zero_copy_only=False)

    # The shortest `https://` puts the host at byte 8; `http://a/` has its third slash there.
    host_start = start + np.where(_at(given, start + 4, plain) == ord("s"), 8, 7)
    host_end = _first(given == ord("/"), start + 8, end)
    stops = (given == ord("?")) | (given == ord("#"))
    end = _first(stops, start, end) if stops.any() else end

    others = np.flatnonzero(~plain)
    spelled = [canonical(url) if url is not None else None for url in urls.take(pa.array(others)).to_pylist()]
    parts = [address or Address("", "", "") for address in spelled]
    tail = "".join(address.text if address.host else "" for address in parts).encode("ascii")
    lengths = np.array([[len(part) for part in address] for address in parts], np.int64).reshape(-1, 3)
    total = np.where(lengths[:, 1] > 0, lengths.sum(1) + 2, 0)
    after = len(given) + np.cumsum(total)
    start, end = start.copy(), end.copy()
    start[others], end[others] = after - total, after
    host_start[others] = np.where(total > 0, after - total + lengths[:, 0] + 2, after)
    host_end[others] = host_start[others] + lengths[:, 1]

    bad = np.zeros(len(urls), bool)
    bad[others] = total == 0
    text = np.concatenate([given, np.frombuffer(tail, np.uint8), np.zeros(WORD, np.uint8)])
    return Addresses(text, start, end, host_start, host_end, bad)


def _at(text: Bytes, positions: Positions, wanted: Mask) -> Bytes:
    found = np.zeros(len(positions), np.uint8)
    found[wanted] = text[positions[wanted]]
    return found


def _first(marks: Mask, start: Positions, otherwise: Positions) -> Positions:
    """For each row the first mark at or after `start`, or `otherwise` if that comes earlier."""
    places = np.append(np.flatnonzero(marks), len(marks))
    return np.minimum(places[np.searchsorted(places, np.minimum(start, len(marks)))], otherwise)


def _has_other_scheme(url: str) -> bool:
    """Whether `url` is a path, or names a scheme without a host, such as `mailto:`, `data:` or a bare `https://`."""
    text = url.strip().removeprefix("//")
    if text.startswith(("/", "\\")) or not text:
        return True
    if _HOST_AND_PORT.match(text):
        return False
    return _parse(text) is not None or _SCHEME.match(text) is not None


def _parse(url: str):  # type: ignore[no-untyped-def]  # can_ada.URL, from an untyped optional package
    try:
        import can_ada
    except ImportError:
        raise with_hint(
            BlocklistError("judging URLs needs the package can_ada, which is not installed"),
            "pip install 'symbert[prepare]'",
        ) from None
    try:
        return can_ada.parse(url)
    except ValueError:
        return None
    except TypeError:  # what a lone surrogate raises
        return None
