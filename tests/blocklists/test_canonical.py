import random

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocklists.canonical import ROWS_AT_ONCE, canonical, canonical_batches

SAME_PAGE = [
    "http://bad.example/a/b",
    "HTTP://BAD.Example/a/b",
    "http://bad.example./a/b",
    "http://bad.example../a/b",
    "http://bad.example:80/a/b",
    "http://user:password@bad.example/a/b",
    "http://%62ad.example/a/b",
    "http:\\\\bad.example\\a\\b",
    "http:/bad.example/a/b",
    "http:bad.example/a/b",
    "http://bad.example/x/../a/./b",
    "http://bad.example/a/%2e%2e/a/b",
    "http://bad.example/a/b?q=1",
    "http://bad.example/a/b#part",
    "  http://bad.exam\tple/a/b\n",
    "http://ｂａｄ.example/a/b",
    "http://bad。example/a/b",
]
NO_HOST = [
    "", " ", "?", "/a/b", "///a/b", "http://", "https:///", "http://.../", "http://exa mple/", "http://a:99999/",
    "http://[::1/", "http://xn--a/", "http://1.2.3.4.5/", "http://999.1/", "mailto:a@b.example", "data:text/html,a",
    "javascript:alert(1)", "about:blank", "file:///etc/passwd", "exam ple",
]  # fmt: skip


@pytest.mark.parametrize("url", SAME_PAGE)
def test_every_spelling_of_a_page_has_one_address(url: str) -> None:
    assert canonical(url) == ("http:", "bad.example", "/a/b")


@pytest.mark.parametrize("url", NO_HOST)
def test_what_leads_to_no_host_has_no_address(url: str) -> None:
    assert canonical(url) is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("bad.example", "https://bad.example/"),
        ("//bad.example/a", "https://bad.example/a"),
        ("bad.example:8080/a", "https://bad.example:8080/a"),
        ("localhost:80", "https://localhost:80/"),
        ("user@bad.example", "https://bad.example/"),
        ("1.2.3.4/a", "https://1.2.3.4/a"),
        ("127.1", "https://127.0.0.1/"),
        ("[::1]:80/a", "https://[::1]:80/a"),
        ("gopher://Bad.Example./a", "https://bad.example/a"),
    ],
)
def test_a_missing_or_unknown_scheme_is_taken_for_https(url: str, text: str) -> None:
    address = canonical(url)
    assert address is not None
    assert address.text == text


def test_a_lone_surrogate_is_no_url() -> None:
    assert canonical("http://a.example/\ud800") is None


def in_batch(urls: list[str | None], array_type: pa.DataType) -> list[tuple[str, str] | None]:
    found: list[tuple[str, str] | None] = []
    for batch in canonical_batches(pa.array(urls, array_type)):
        text = batch.text.tobytes()
        for start, end, host_start, host_end, bad in zip(
            batch.start, batch.end, batch.host_start, batch.host_end, batch.bad, strict=True
        ):
            spans = text[start:end].decode("ascii"), text[host_start:host_end].decode("ascii")
            assert not bad or spans == ("", "")
            found.append(None if bad else spans)
    return found


def one_by_one(urls: list[str | None]) -> list[tuple[str, str] | None]:
    addresses = [canonical(url) if url is not None else None for url in urls]
    return [address and (address.text, address.host) for address in addresses]


label = st.text("abxn0-_1", min_size=1, max_size=6) | st.sampled_from(
    ["xn--", "xn--bcher-kva", "x", "xn", "xn-", "0x7f", "1"]
)
host = st.lists(label, min_size=1, max_size=5).map(".".join)
piece = st.sampled_from(
    ["a", ".", "..", "%2e", "%2E.", "%41", "%", "~", "'", '"', "b c", "é", "\\", "@", ":", "^", "|", "[", "\t", ""]
)
path = st.lists(st.lists(piece, max_size=3).map("".join), max_size=4).map("/".join)
ending = st.sampled_from(["", "?", "?a=/b.c", "#", "#a?b", "?é'\"", "\n"])
scheme = st.sampled_from(["http://", "https://", "HTTP://", "https:/", "ftp://", "", "//", "u:p@", "http://u@"])
port = st.sampled_from(["", "", ":", ":80", ":443", ":8080", ".", ":x"])
likely_url = st.builds("{}{}{}/{}{}".format, scheme, host, port, path, ending) | st.builds(
    "{}{}{}".format, scheme, host, ending
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.none() | likely_url | st.text(max_size=20), max_size=20))
@example(["http://a/", "https://a/", "http://a", "https://a?/", "http://a.b/?x/y#z", "http://a.b/#?", None])
@example(
    ["https://x--y.com/", "https://xn--y.com/", "https://a.xn--b/", "https://a.0x1/", "https://a.1/", "http://-a.b/"]
)
def test_a_batch_spells_urls_as_one_by_one(urls: list[str | None]) -> None:
    assert in_batch(urls, pa.string()) == one_by_one(urls)


@pytest.mark.parametrize(
    "array_type", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_arrow_type_of_text_can_be_judged(array_type: pa.DataType) -> None:
    urls = ["http://a.example/b?c", None, "a.example", "no url at all"]
    assert in_batch(urls, array_type) == one_by_one(urls)


def test_slices_chunks_and_more_rows_than_a_batch_are_read_where_they_begin() -> None:
    draw = random.Random(1)
    urls: list[str | None] = [
        f"https://{draw.randrange(10**6)}.example{draw.choice(['', '.', ':81'])}/" for _ in range(ROWS_AT_ONCE + 7)
    ]
    whole = pa.chunked_array([pa.array(urls[:5]), pa.array(urls[5:])])
    found = [len(batch.bad) for batch in canonical_batches(whole.slice(3))]
    assert sum(found) == len(urls) - 3
    part = next(canonical_batches(pa.array(urls).slice(11, 2)))
    assert part.text.tobytes()[part.start[0] : part.end[0]].decode() == one_by_one(urls[11:12])[0][0]  # type: ignore[index]


def test_a_url_of_10_kb_is_spelled_like_any_other() -> None:
    urls: list[str | None] = [
        "http://a.example/" + "b" * 10_000,
        "http://" + "a." * 5_000 + "example/",
        "http://a.example/" + "é" * 10_000,
    ]
    assert in_batch(urls, pa.string()) == one_by_one(urls)
