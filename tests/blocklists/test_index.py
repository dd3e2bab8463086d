import gzip
import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from blocklists.canonical import canonical
from blocklists.compile import FORMAT, compile_categories, compile_folder, compile_to
from blocklists.errors import BlocklistError
from blocklists.index import Index
from blocklists.ut1 import Category


def index_of(*categories: Category) -> Index:
    return Index(memoryview(compile_categories(categories, {})), "test")


@pytest.fixture(scope="module")
def lists() -> Index:
    return index_of(
        Category("adult", ["bad.example", "xn--bcher-kva.example", "1.2.3.4", "[2001:db8::1]", "b.co.uk", "com"], []),
        Category("phishing", ["bad.example"], ["host.example/exact/page.html", "5.6.7.8/panel", "host.example:8080/p"]),
    )


VERDICTS = {
    # hosts and their parents
    "https://bad.example/": True,
    "http://bad.example": True,
    "bad.example/page": True,
    "https://www.bad.example/a?b#c": True,
    "https://a.b.c.bad.example/": True,
    "https://notbad.example/": False,
    "https://bad.example.org/": False,
    "https://bad.examples/": False,
    "https://example/": False,
    "https://BAD.Example/": True,
    "https://bad.example./": True,
    "https://bad.example:8443/": True,
    "https://user:pw@bad.example/": True,
    "https://bad.example@good.org/": False,
    "https://good.org@bad.example/": True,
    "https://good.org/bad.example/": False,
    "https://good.org\\@bad.example/": False,
    "https://bad.example\\@good.org/": True,
    "https://b%61d.example/": True,
    "https://bad%2Eexample/": True,
    "https://ｂad。example/": True,
    "//bad.example/": True,
    "https://b.co.uk/": True,
    "https://co.uk/": False,
    # a bare top-level domain blocks no one but itself
    "https://good.com/": False,
    "https://com/": True,
    # punycode
    "https://bücher.example/": True,
    "https://www.XN--BCHER-KVA.example/": True,
    "https://bucher.example/": False,
    # numbers
    "http://1.2.3.4/a": True,
    "http://1.2.772/": True,
    "http://0x01020304/": True,
    "http://16909060/": True,
    "http://01.02.03.04/": True,
    "http://9.1.2.3.4/": None,
    "http://[2001:db8:0:0::1]/": True,
    "http://[::2]/": False,
    "http://5.6.7.8/": False,
    # exact addresses
    "https://host.example/exact/page.html": True,
    "http://host.example/exact/page.html": False,
    "https://host.example/exact/page.html?session=1#top": True,
    "https://host.example/exact/./x/../page.html": True,
    "https://u:p@host.example:443/exact/page.html": True,
    "https://host.example/exact/page.html/": False,
    "https://host.example/Exact/page.html": False,
    "https://www.host.example/exact/page.html": False,
    "https://host.example/p": False,
    "https://host.example:8080/p": True,
    "https://5.6.7.8/panel": True,
    # no URL
    "": None,
    "https://": None,
    "mailto:someone@bad.example": None,
    "https://bad .example/": None,
}


@pytest.mark.parametrize("url", VERDICTS)
def test_each_url_of_the_table_has_its_verdict(lists: Index, url: str) -> None:
    judgement = lists.judge(pa.array([url]))
    verdict = None if judgement.bad[0] else bool(judgement.blocked[0])
    assert verdict is VERDICTS[url]
    matches = lists.matches(url)
    assert (None if matches is None else bool(matches)) is VERDICTS[url]


def test_the_whole_table_at_once_has_the_same_verdicts(lists: Index) -> None:
    judgement = lists.judge(pa.array([*VERDICTS, None]))
    assert judgement.bad.tolist() == [verdict is None for verdict in [*VERDICTS.values(), None]]
    assert judgement.blocked.tolist() == [bool(verdict) for verdict in [*VERDICTS.values(), None]]


def test_only_the_wanted_categories_block(lists: Index) -> None:
    urls = pa.array(["https://bad.example/", "https://b.co.uk/", "https://host.example/exact/page.html"])
    assert lists.judge(urls, ["phishing"]).blocked.tolist() == [True, False, True]
    assert lists.judge(urls, ["adult"]).blocked.tolist() == [True, True, False]
    assert lists.judge(urls, []).blocked.tolist() == [False, False, False]


def test_lookup_says_which_entries_matched_and_how(lists: Index) -> None:
    found = lists.matches("http://www.bad.example./a")
    assert found is not None
    assert [(match.entry, match.kind, match.categories) for match in found] == [
        ("bad.example", "parent domain", ("adult", "phishing"))
    ]
    found = lists.matches("https://host.example/exact/page.html")
    assert found is not None
    assert [(match.entry, match.kind) for match in found] == [("https://host.example/exact/page.html", "address")]


def plain_verdict(url: str, hosts: set[str], pages: set[str]) -> bool:
    address = canonical(url)
    if address is None:
        return False
    labels = address.host.split(".")
    domains = {".".join(labels[n:]) for n in range(len(labels)) if n == 0 or n < len(labels) - 1}
    return bool(domains & hosts) or address.text in pages


@pytest.mark.slow
def test_the_index_equals_plain_sets_over_100_000_random_entries_and_urls() -> None:
    draw = random.Random(20230122)
    words = [f"{draw.choice('abcdx')}{number:x}" for number in range(400)]

    def host() -> str:
        return ".".join(
            [*draw.choices(words, k=draw.choice((1, 1, 2, 3))), draw.choice(("com", "org", "xn--p1ai", "co.uk"))]
        )

    def page() -> str:
        return f"{host()}/{'/'.join(draw.choices(words, k=draw.randrange(4)))}"

    categories = [Category(name) for name in ("a", "b", "c")]
    for _ in range(50_000):
        draw.choice(categories).hosts.append(host())
        draw.choice(categories).addresses.append(page())
    index = index_of(*categories)
    changes = (
        str,
        str.upper,
        lambda url: url.replace(".com", ".com."),
        lambda url: url + "?q=.a/b",
        lambda url: url.replace("/a", "/./a"),
    )
    urls = [draw.choice(changes)(draw.choice(("http://", "https://", "")) + page()) for _ in range(100_000)]

    for wanted in (categories, categories[:1]):
        hosts = {
            found.host for category in wanted for entry in category.hosts if (found := canonical(f"https://{entry}"))
        }
        pages = {
            found.text
            for category in wanted
            for entry in category.addresses
            if (found := canonical(f"https://{entry}"))
        }
        expected = [plain_verdict(url, hosts, pages) for url in urls]
        judged = index.judge(pa.array(urls), [category.name for category in wanted]).blocked.tolist()
        assert judged == expected
        assert 0.02 < np.mean(expected) < 0.98


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def blocked(index: Index, *urls: str) -> list[bool]:
    return index.judge(pa.array(urls)).blocked.tolist()


def test_the_oddities_of_ut1_lists_are_understood_and_counted(tmp_path: Path) -> None:
    lines = [
        b"# comment", b"", b".dotted.example", b"*.star.example", b"crlf.example\r", b"0.0.0.0lost-space.example",
        b"0.0.0.0 hosts.example", b"1.2.3.4", b"2001:db8::2", b"Upper.Example.", "b\u00fccher.example".encode(),
        b"latin\xe9.example", b"two words", b"a.example/path", b"http://scheme.example/", b"exa%20mple.example",
    ]  # fmt: skip
    folder = write(tmp_path, {"malware/domains": b"\n".join(lines)})
    index = Index.of_folder(folder)
    assert index.header["lists"]["malware"] == {
        "hosts": 10,
        "addresses": 0,
        "files": ["malware/domains"],
        "oddities": {
            "0.0.0.0name": 1,
            "IP address": 2,
            "carriage return": 1,
            "comment": 1,
            "internationalized name": 1,
            "leading dot": 2,
            "line of a hosts file": 1,
            "refused: no host": 1,
            "refused: not UTF-8": 1,
            "refused: path in a list of hosts": 1,
            "refused: white space": 1,
        },
    }
    good = ["dotted", "a.star", "crlf", "lost-space", "hosts", "upper", "xn--bcher-kva", "scheme"]
    assert all(
        blocked(index, *[f"http://{name}.example/" for name in good], "http://1.2.3.4/", "http://[2001:DB8::2]/")
    )
    assert not any(blocked(index, "http://a.example/", "http://0.0.0.0lost-space.example/", "http://0.0.0.0/"))


def test_byte_split_parts_are_joined_before_lines_are_read_and_leftovers_are_not_read(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "adult/domains.0": b"one.example\ntw",
            "adult/domains.1": b"o.example\n",
            "malware/domains": b"three.example\n",
            "malware/domains.24733": b"leftover.example\n",
            "warez/domains.gz": gzip.compress(b"four.example\n"),
        },
    )
    index = Index.of_folder(folder)
    hosts = [f"https://{name}.example/" for name in ("one", "two", "three", "four", "tw", "o", "leftover")]
    assert blocked(index, *hosts) == [True] * 4 + [False] * 3
    assert index.header["lists"]["adult"]["files"] == ["adult/domains.0", "adult/domains.1"]


def test_aliases_lead_to_the_category_whether_links_copies_or_only_names(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {"adult/domains": b"one.example\n", "porn/domains": b"two.example\n", "agressif/domains": b"x.example\n"},
    )
    (folder / "hatred").symlink_to("agressif")
    index = Index.of_folder(folder, ["porn", "aggressive", "hatred"])
    assert index.categories == ("adult", "agressif")
    urls = pa.array(["https://one.example/", "https://two.example/", "https://x.example/"])
    assert index.judge(urls, ["porn"]).blocked.tolist() == [True, True, False]
    assert (
        index.judge(urls, ["hatred"]).blocked.tolist()
        == index.judge(urls, ["violence"]).blocked.tolist()
        == [False, False, True]
    )


def test_equal_lists_make_equal_bytes_whatever_the_order_of_lines(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"adult/domains": b"one.example\ntwo.example\n"})
    second = write(tmp_path / "b", {"adult/domains": b"two.example\none.example\n"})
    assert compile_folder(first) == compile_folder(second)


def test_the_hash_of_an_index_tells_what_it_judges_not_how_its_lists_were_written(tmp_path: Path) -> None:
    plain = write(tmp_path / "a", {"adult/domains": b"one.example\ntwo.example\n"})
    odd = write(tmp_path / "b", {"adult/domains": b"# of today\r\n.TWO.example\none.example.\none.example\n"})
    other = write(tmp_path / "c", {"malware/domains": b"one.example\ntwo.example\n"})
    assert Index.of_folder(plain).sha256 == Index.of_folder(odd).sha256 != Index.of_folder(other).sha256
    assert compile_folder(plain) != compile_folder(odd)


def test_more_than_64_categories_are_told_apart() -> None:
    index = index_of(*[Category(f"c{n:03}", [f"h{n}.example", "all.example"]) for n in range(130)])
    (match,) = index.matches("https://h129.example/") or []
    assert match.categories == ("c129",)
    (match,) = index.matches("https://all.example/") or []
    assert len(match.categories) == 130
    assert index.judge(pa.array(["https://h70.example/"]), ["c070"]).blocked.all()
    assert not index.judge(pa.array(["https://h70.example/"]), ["c006"]).blocked.any()


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    folder = write(tmp_path / "lists", {"adult/domains": b"\n".join(b"h%d.example" % n for n in range(1000))})
    compile_to(folder, tmp_path / "index")
    return tmp_path / "index"


def test_an_index_on_disk_judges_like_its_folder(compiled: Path) -> None:
    index, folder = Index.open(compiled), Index.of_folder(compiled.parent / "lists")
    assert index.sha256 == folder.sha256
    assert blocked(index, "http://www.h999.example/", "http://h1000.example/") == [True, False]
    assert compiled.stat().st_size / len(index) < 15


@pytest.mark.parametrize("place", [9, 20, 400, -3000, -40, -1])
def test_a_flipped_bit_anywhere_is_a_damaged_index(compiled: Path, place: int) -> None:
    content = bytearray(compiled.read_bytes())
    content[place] ^= 4
    compiled.write_bytes(content)
    with pytest.raises(BlocklistError, match=str(compiled)):
        Index.open(compiled)


@pytest.mark.parametrize("length", [0, 5, 12, 100, 5000, -1])
def test_an_index_cut_short_is_refused(compiled: Path, length: int) -> None:
    compiled.write_bytes(compiled.read_bytes()[:length])
    with pytest.raises(BlocklistError, match=str(compiled)):
        Index.open(compiled)


def test_an_index_of_another_format_is_refused_with_what_to_do(compiled: Path) -> None:
    content = bytearray(compiled.read_bytes())
    struct.pack_into("<I", content, 8, FORMAT - 1)
    compiled.write_bytes(content)
    with pytest.raises(BlocklistError, match=f"format {FORMAT - 1}, expected format {FORMAT}") as refusal:
        Index.open(compiled)
    assert "symbert blocklists compile" in refusal.value.__notes__[0]


@pytest.mark.parametrize(
    ("files", "wanted", "message"),
    [
        ({"readme.txt": b""}, None, "holds no lists"),
        ({"domains": b"a.example"}, None, "holds no lists"),
        ({"adult/domains.5": b"a.example"}, None, "holds no lists"),
        ({"adult/domains": b"a.example"}, ["adlt"], "no category `adlt`"),
        ({"adult/domains": b"# nothing\n"}, None, "hold no entry"),
        ({"adult/domains.gz": gzip.compress(b"a.example" * 100)[:-9]}, None, "is not whole gzip"),
    ],
)
def test_lists_of_another_layout_are_refused(
    tmp_path: Path, files: dict[str, bytes], wanted: list[str] | None, message: str
) -> None:
    with pytest.raises(BlocklistError, match=message):
        compile_folder(write(tmp_path, files), wanted)


@pytest.mark.parametrize("path", ["absent", "."])
def test_a_path_that_is_no_index_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BlocklistError, match="does not exist"):
        Index.open(tmp_path / path)


@pytest.mark.slow
@pytest.mark.shared
def test_the_index_says_of_every_ut1_entry_its_own_categories(shared: Path) -> None:
    folder = shared / "ut1"
    index = Index.of_folder(folder)
    for category in index.categories:
        path = folder / category / "domains"
        hosts = [line.removeprefix("0.0.0.0") for line in path.read_text("utf-8").split("\n") if line]
        judgement = index.judge(
            pa.array([f"http://www.{host}/" if not host[-1].isdigit() else f"http://{host}" for host in hosts]),
            [category],
        )
        assert judgement.blocked.all(), category
