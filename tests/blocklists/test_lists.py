"""What UT1 lists say of a URL."""

from pathlib import Path

import pyarrow as pa
import pytest

from blocklists.errors import BlocklistError
from blocklists.lists import Blocklists


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "domains").write_text("bad.example\n192.0.2.7\nxn--bcher-kva.example\ncom\n\n")
    (tmp_path / "adult" / "urls").write_text("good.example/bad/page\n")
    (tmp_path / "malware").mkdir()
    (tmp_path / "malware" / "domains").write_bytes(b"0.0.0.0miner.example\r\n.dotted.example\r\n")
    return tmp_path


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("https://bad.example/", True),
        ("http://BAD.example:8080/page", True),
        ("https://www.bad.example/x", True),
        ("https://notbad.example/", False),
        ("https://example/", False),
        ("https://other.com/", False),
        ("http://user:password@bad.example/", True),
        ("https://bad.example./", True),
        ("http://192.0.2.7/", True),
        ("http://0xc0000207/", True),
        ("https://bücher.example/", True),
        ("https://good.example/bad/page", True),
        ("https://good.example/bad/page?id=2", True),
        ("https://good.example/bad/page/", False),
        ("https://good.example/bad/", False),
        ("http://good.example/bad/page", False),
        ("https://miner.example/", True),
        ("https://a.dotted.example/", True),
        ("not a url", False),
        ("", False),
        (None, False),
    ],
)
def test_a_url_is_blocked_by_its_host_a_parent_domain_or_exactly(folder: Path, url: str | None, blocked: bool) -> None:
    lists = Blocklists.load(folder, ["adult", "malware"])
    assert lists.blocked(pa.array([url], pa.string())).tolist() == [blocked]


def test_only_the_named_categories_count(folder: Path) -> None:
    urls = pa.array(["https://bad.example/", "https://miner.example/"])
    assert Blocklists.load(folder, ["malware"]).blocked(urls).tolist() == [False, True]


def test_each_named_url_has_its_wanted_categories_and_each_bad_one_is_told(folder: Path) -> None:
    lists = Blocklists.load(folder, ["malware", "adult"])
    with (folder / "malware" / "domains").open("a") as file:
        file.write("bad.example\n")
    both = Blocklists.load(folder, ["malware", "adult"])
    urls = pa.array(["https://bad.example/", "https://fine.example/", None, "no url", "https://a.miner.example/"])
    assert lists.named(urls).categories == {0: ["adult"], 4: ["malware"]}
    assert both.named(urls).categories == {0: ["adult", "malware"], 4: ["malware"]}
    assert both.named(urls).bad.tolist() == [False, False, True, True, False]


def test_the_hash_tells_lists_apart(folder: Path) -> None:
    before = Blocklists.load(folder, ["adult"]).sha256
    assert Blocklists.load(folder, ["adult"]).sha256 == before
    (folder / "adult" / "domains").write_text("other.example\n")
    assert Blocklists.load(folder, ["adult"]).sha256 != before


def test_a_category_without_lists_is_an_error_that_names_those_there(folder: Path) -> None:
    with pytest.raises(BlocklistError, match="has no category `sect`") as error:
        Blocklists.load(folder, ["sect"])
    assert error.value.__notes__ == ["categories there: adult, malware"]
    with pytest.raises(BlocklistError, match="does not exist"):
        Blocklists.load(folder / "absent", ["sect"])


@pytest.mark.slow
@pytest.mark.shared
def test_the_lists_block_exactly_the_hosts_that_the_shared_corpus_annotates(shared: Path) -> None:
    import pyarrow.json as pj

    from oscar_prep.configuration import DROPPED_CATEGORIES

    table = pa.concat_tables(
        pj.read_json(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), pj.ReadOptions(block_size=1 << 28))
        .flatten().flatten().select(["warc_headers.warc-target-uri", "metadata.categories"])
        for path in sorted((shared / "oscar2301/en_meta").glob("*.zst"))
    )  # fmt: skip
    annotated = [
        bool(categories and set(categories) & set(DROPPED_CATEGORIES)) for categories in table.column(1).to_pylist()
    ]
    blocked = Blocklists.load(shared / "ut1", DROPPED_CATEGORIES).blocked(table.column(0).combine_chunks())
    assert blocked.tolist() == annotated
    assert sum(annotated) == 462
