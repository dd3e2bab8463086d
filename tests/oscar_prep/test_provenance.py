"""From samples to documents and back, on small corpora that `prepare` made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.provenance import Corpus, hosts_of
from oscar_prep.reopen import InputFiles
from oscar_prep.shards import read_rows
from oscar_prep.thresholds import funnels
from oscar_prep.tokenizer import CorpusTokenizer

LENGTH = 11


@pytest.fixture
def made(
    tmp_path: Path, tokenizer: CorpusTokenizer, write_shard: Callable[..., Path], oscar: Callable[..., dict[str, Any]]
) -> Corpus:
    """Two units, both splits; documents of 1 to 60 words, some dropped by each rule, one by two of them."""
    records = [oscar("the quick brown fox jumps over the lazy dog " * (n % 7) + f"dog {n}", n) for n in range(80)]
    records[3]["metadata"] |= {"categories": ["press", "adult"], "quality_warnings": ["tiny"]}
    for n, score in ((5, 4.0), (6, 4.9), (7, 5.0), (8, 5.1), (9, 6.0), (10, None), (11, 150_000.0)):
        records[n]["metadata"]["harmful_pp"] = score
    records[12]["metadata"]["quality_warnings"] = ["noisy", "header"]
    records[13]["warc_headers"]["warc-target-uri"] = None
    records[13]["metadata"]["harmful_pp"] = 1.0
    for n in range(3, 7):
        records[n]["warc_headers"]["warc-target-uri"] = f"http://user@Www.Dropped.example:8080/{n}"
    write_shard(tmp_path / "in" / "part_1.jsonl.gz", records[:30])
    write_shard(tmp_path / "in" / "part_2.jsonl.zst", records[30:])
    configuration = Configuration(sequence_length=LENGTH, validation_samples=9, validation_share=0.3)
    files = tuple(discover([tmp_path / "in"]).files)
    assert prepare(Plan(tmp_path / "corpus", files, tokenizer, configuration), Running(workers=1)) is not None
    return Corpus(tmp_path / "corpus")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_pieces_of_every_sample_are_the_tokens_of_their_documents(made: Corpus, split: str, tmp_path: Path) -> None:
    encoder = Tokenizer.from_file(str(made.folder / "tokenizer" / "tokenizer.json"))
    files = InputFiles(made, tmp_path / "in")
    shards = [made.folder / shard["file"] for shard in made.manifest["splits"][split]["shards"]]
    rows = np.concatenate([rows for shard in shards for rows in read_rows(shard, LENGTH)])
    assert len(rows) > 5
    for index, row in enumerate(rows):
        pieces = made.sample(index, split)
        assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
        assert pieces[-1].end == LENGTH
        for piece in pieces:
            text = files.text(piece.document)
            whole = encoder.encode(f"[CLS] {text} [SEP]", add_special_tokens=False).ids
            ids = row[piece.start : piece.end].tolist()
            assert whole[piece.document_start : piece.document_start + len(ids)] == ids
            assert piece.text == encoder.decode(ids, skip_special_tokens=False)
            assert piece.document["tokens"] == len(whole)


def test_a_sample_that_is_not_there_is_refused(made: Corpus) -> None:
    rows = made.manifest["splits"]["train"]["rows"]
    for index in (-1, rows):
        with pytest.raises(PrepareError, match=f"has no train sample {index}, expected 0 to {rows - 1}"):
            made.sample(index)


def failing_of(made: Corpus, url: str) -> list[tuple[str, str, str]]:
    (document,) = made.by_url(url)
    return [(found.rule, found.value, found.wanted) for found in made.failing(document)]


def test_a_url_says_which_rules_dropped_it_by_which_value(made: Corpus) -> None:
    between = "5 < harmful_pp < 100000"
    assert failing_of(made, "https://example.org/0") == []
    assert failing_of(made, "http://user@Www.Dropped.example:8080/3") == [
        ("blocklist", "adult", "none of the dropped categories"),
        ("quality_warnings", "tiny", "none of the dropped warnings"),
    ]
    assert failing_of(made, "https://example.org/7") == [("harmful_pp", "5", between)]
    assert failing_of(made, "https://example.org/10") == [("harmful_pp", "missing", between)]
    assert failing_of(made, "https://example.org/12") == [
        ("quality_warnings", "noisy, header", "none of the dropped warnings")
    ]


def test_another_spelling_of_a_url_finds_its_document(made: Corpus) -> None:
    (document,) = made.by_url("http://www.dropped.example.:8080/x/../4")
    assert document["line"] == 5
    assert made.by_url("https://absent.example/") == []


def test_near_a_threshold_are_the_closest_on_both_sides(made: Corpus) -> None:
    below, above = made.near("harmful_pp", 5.0, 2)
    assert [document["harmful_pp"] for document in below] == [4.9, 4.0]
    assert [document["harmful_pp"] for document in above] == [5.0, 5.1]
    with pytest.raises(PrepareError, match="`bytes` is not a score"):
        made.near("bytes", 5.0, 2)


def test_the_hosts_of_dropped_documents_are_ranked_with_their_reasons(made: Corpus) -> None:
    first, second, *rest = made.top_dropped(10)
    assert (first.host, first.dropped, first.reasons) == ("example.org", 4, {"harmful_pp": 3, "quality_warnings": 1})
    assert (second.host, second.dropped, second.kept) == ("www.dropped.example", 3, 1)
    assert second.reasons == {"blocklist": 1, "harmful_pp": 2}
    assert [host.host for host in rest] == ["(none)"]
    assert len(made.top_dropped(1)) == 1


def test_the_host_of_a_url_is_found_as_it_is_spelled() -> None:
    urls = ["http://A.b:80/x@y", "https://u:p@c.d?q", "//e.f", "ftp://[::1]:2/", "g.h/i", "", None]
    assert hosts_of(pa.chunked_array([urls])).to_pylist() == [
        "a.b",
        "c.d",
        "e.f",
        "[::1]",
        "(none)",
        "(none)",
        "(none)",
    ]


def test_the_text_of_a_file_that_is_gone_or_changed_is_not_shown(made: Corpus, tmp_path: Path) -> None:
    (document,) = made.by_url("https://example.org/40")
    assert InputFiles(made, tmp_path / "in").text(document).endswith("dog 40")
    path = tmp_path / "in" / "part_2.jsonl.zst"
    assert InputFiles(made, path).text(document).endswith("dog 40")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PrepareError, match=r"part_2\.jsonl\.zst has changed"):
        InputFiles(made, tmp_path / "in").text(document)
    path.unlink()
    with pytest.raises(PrepareError, match=r"part_2\.jsonl\.zst is gone"):
        InputFiles(made, tmp_path / "in").text(document)
    with pytest.raises(PrepareError, match="does not exist"):
        InputFiles(made, tmp_path / "nowhere")


def test_the_funnel_of_the_corpuss_own_threshold_is_its_ledger(made: Corpus) -> None:
    (funnel,) = funnels(made, [5.0])
    ledger = made.manifest["ledger"]
    assert funnel.exact
    assert (funnel.documents, funnel.kept, funnel.tokens) == (ledger["documents"], ledger["kept"], ledger["tokens"])
    assert {rule: funnel.dropped[rule] for rule in ledger["dropped"]} == ledger["dropped"]


def test_the_funnel_of_another_threshold_is_the_one_that_prepare_gives(
    made: Corpus, tmp_path: Path, tokenizer: CorpusTokenizer
) -> None:
    for minimum in (3.0, 5.5):
        configuration = Configuration(sequence_length=LENGTH, validation_samples=0, harmful_pp=(minimum, 100_000.0))
        plan = Plan(tmp_path / f"{minimum}", tuple(discover([tmp_path / "in"]).files), tokenizer, configuration)
        manifest = prepare(plan, Running(workers=1))
        assert manifest is not None
        (funnel,) = funnels(made, [minimum])
        assert funnel.kept == manifest["ledger"]["kept"]
        assert {rule: funnel.dropped[rule] for rule in manifest["ledger"]["dropped"]} == manifest["ledger"]["dropped"]
        assert funnel.exact == (minimum > 5)
        tokens = funnel.tokens + funnel.estimated_tokens
        assert tokens == pytest.approx(manifest["ledger"]["tokens"], rel=0.02)
        assert minimum < 5 or tokens == manifest["ledger"]["tokens"]


def test_a_threshold_above_the_upper_bound_is_refused(made: Corpus) -> None:
    with pytest.raises(PrepareError, match="not below the corpus's upper bound of 100000"):
        funnels(made, [5.0, 1e6])
