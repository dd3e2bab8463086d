"""Documents judged where their records say nothing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from blocklists.compile import compile_to
from blocklists.lists import Blocklists
from oscar_prep.annotate import ComputedWarnings, HarmfulScores, IdentifiedLanguages, ListedCategories, annotate
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.filters import Language
from oscar_prep.inputs import discover
from oscar_prep.language import LanguageModel
from oscar_prep.layout import METADATA, Documents
from oscar_prep.perplexity import HarmfulModel
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.sources import Sources
from oscar_prep.tokenizer import CorpusTokenizer
from tests.oscar_prep.arpa import write_arpa
from tests.oscar_prep.models import SENTENCES, train_language_model


def documents(texts: Sequence[str] = (), **columns: Sequence[Any]) -> Documents:
    count = len(next(iter(columns.values())))
    rows = [{name: values[row] for name, values in columns.items()} for row in range(count)]
    return Documents(list(texts) or [f"text {row}" for row in range(count)], pa.RecordBatch.from_pylist(rows, METADATA))


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for name, content in {"adult/domains": "bad.example\n", "malware/domains": "bad.example\nworse.example\n"}.items():
        (tmp_path / "ut1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ut1" / name).write_text(content)
    return tmp_path / "ut1"


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arpa(tmp_path_factory.mktemp("kenlm") / "a.arpa", "the quick fox\nthe lazy dog\n")


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(train_language_model(tmp_path_factory.mktemp("fasttext")))


def test_listed_categories_are_added_to_the_records_own_and_bad_urls_counted(lists: Path) -> None:
    urls = ["https://www.bad.example/", "https://fine.example/", None, "no url", "http://worse.example"]
    own = [["press", "adult"], None, ["press"], None, []]
    batch, notes = ListedCategories(Blocklists.load(lists, ["adult", "malware"])).annotate(
        documents(url=urls, categories=own)
    )
    assert batch.metadata.column("categories").to_pylist() == [
        ["press", "adult", "malware"],
        None,
        ["press"],
        None,
        ["malware"],
    ]
    assert notes["bad_url"].tolist() == [False, False, True, True, False]


def test_harmful_perplexity_is_scored_where_it_is_missing_or_everywhere(arpa: Path) -> None:
    model = HarmfulModel(arpa)
    given = [700.0, None, 0.0, float("nan")]
    batch = documents(harmful_pp=given, texts=["the quick fox"] * 4)
    expected = model.perplexity("the quick fox")
    filled, notes = HarmfulScores(model).annotate(batch)
    assert filled.metadata.column("harmful_pp").to_pylist() == [700.0, expected, expected, expected]
    assert notes["harmful_pp_scored"].tolist() == [False, True, True, True]
    filled, _ = HarmfulScores(model, rescore=True).annotate(batch)
    assert filled.metadata.column("harmful_pp").to_pylist() == [expected] * 4


def test_warnings_are_computed_where_there_are_none_or_everywhere() -> None:
    clean = "\n".join(["a line of more than a hundred characters " * 3] * 9)
    given = [["adult"], None, [], None]
    batch = documents(quality_warnings=given, texts=["one line", "one line", "one line", clean])
    filled, notes = ComputedWarnings().annotate(batch)
    assert filled.metadata.column("quality_warnings").to_pylist() == [["adult"], ["tiny", "short_sentences"], [], None]
    assert notes["warnings_computed"].tolist() == [False, True, False, True]
    filled, _ = ComputedWarnings(rescore=True).annotate(batch)
    assert filled.metadata.column("quality_warnings").to_pylist() == [["tiny", "short_sentences"]] * 3 + [None]


def test_languages_are_identified_where_they_are_missing_or_everywhere(languages: LanguageModel) -> None:
    batch = documents(
        language=["fr", None, "fr"], language_probability=[0.9, None, None], texts=list(SENTENCES.values())
    )
    filled, notes = IdentifiedLanguages(languages).annotate(batch)
    assert filled.metadata.column("language").to_pylist() == ["fr", "fr", "de"]
    assert filled.metadata.column("language_probability")[0].as_py() == 0.9
    assert filled.metadata.column("language_probability").null_count == 0
    assert notes["language_identified"].tolist() == [False, True, True]
    filled, _ = IdentifiedLanguages(languages, rescore=True).annotate(batch)
    assert filled.metadata.column("language").to_pylist() == ["en", "fr", "de"]


def test_annotators_work_on_any_slice_and_on_no_documents(lists: Path, arpa: Path, languages: LanguageModel) -> None:
    annotators = [
        ListedCategories(Blocklists.load(lists, ["adult"])),
        HarmfulScores(HarmfulModel(arpa)),
        ComputedWarnings(),
        IdentifiedLanguages(languages),
    ]
    batch = documents(url=["http://bad.example/", None, "http://bad.example/"], texts=list(SENTENCES.values()))
    whole, _ = annotate(batch, annotators)
    second = annotate(batch.take(np.array([1])), annotators)[0]
    assert second.metadata.to_pylist() == whole.metadata.slice(1, 1).to_pylist()
    assert len(annotate(batch.first(0), annotators)[0]) == 0


def test_the_language_rule_keeps_one_language_from_its_least_probability_on() -> None:
    batch = documents(language=["en", "en", "fr", None, "en"], language_probability=[0.8, 0.79, 0.99, 0.9, None])
    assert Language("en", 0.8).drops(batch.metadata).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("settings", "files", "message"),
    [
        ({"drop_categories": ()}, {"blocklists": "ut1"}, "would judge nothing"),
        ({"missing_harmful_pp": "score"}, {}, "needs a KenLM model"),
        ({}, {"kenlm": "a"}, "would score nothing"),
        ({"rescore": True}, {}, "nothing to judge by"),
        ({}, {"language_model": "a"}, "would judge nothing"),
        ({"rescore": True}, {"kenlm": "absent"}, "absent does not exist"),
        ({"language": "en"}, {"language_model": "absent"}, "absent does not exist"),
    ],
)
def test_settings_that_lack_their_file_and_files_without_use_are_refused(
    corpus: Callable[..., dict[str, Any]], oscar: Callable[..., Any], settings: dict[str, Any], files: Any, message: str
) -> None:
    with pytest.raises(PrepareError, match=message):
        corpus([oscar()], Sources(**{name: Path(path) for name, path in files.items()}), **settings)


@pytest.fixture
def corpus(
    tmp_path: Path, tokenizer: CorpusTokenizer, write_shard: Callable[..., Path]
) -> Callable[..., dict[str, Any]]:
    """Prepares records with one worker; returns the manifest. The corpus is tmp_path/corpus."""

    def make(records: list[Any], sources: Sources, **settings: Any) -> dict[str, Any]:
        write_shard(tmp_path / "in" / "a.jsonl", records)
        chosen = {"sequence_length": 8, "validation_samples": 0, **settings}
        plan = Plan(
            tmp_path / "corpus", tuple(discover([tmp_path / "in"]).files), tokenizer, Configuration(**chosen), sources
        )
        manifest = prepare(plan, Running(workers=1))
        assert manifest is not None
        return manifest

    return make


@pytest.mark.parametrize("compiled", [False, True])
def test_a_corpus_without_categories_is_judged_by_a_folder_or_an_index(
    corpus: Callable[..., dict[str, Any]], oscar: Callable[..., Any], lists: Path, tmp_path: Path, compiled: bool
) -> None:
    records = [oscar(f"the quick brown fox {n}", n) for n in range(30)]
    records[3]["warc_headers"]["warc-target-uri"] = "http://WWW.bad.example:8080/x"
    records[5]["warc_headers"]["warc-target-uri"] = "mailto:nobody"
    if compiled:
        compile_to(lists, tmp_path / "index")
    manifest = corpus(records, Sources(tmp_path / "index" if compiled else lists), drop_categories=("adult",))
    assert manifest["ledger"]["dropped"]["blocklist"] == 1
    assert manifest["ledger"]["notes"]["bad_url"] == 1
    assert len(manifest["blocklists"]) == 64
    rows = pq.read_table(tmp_path / "corpus" / "documents").to_pylist()
    assert [(row["line"], row["categories"]) for row in rows if row["reason"]] == [(4, ["adult"])]


def test_scores_stand_in_the_documents_and_decide(
    corpus: Callable[..., dict[str, Any]], oscar: Callable[..., Any], arpa: Path, tmp_path: Path
) -> None:
    model = HarmfulModel(arpa)
    contents = ["the quick fox the lazy dog", "quite other words", "the lazy\u00a0dog"] * 5
    bound = model.perplexity("quite other words")
    records = [oscar(content, n, harmful_pp=None) for n, content in enumerate(contents)]
    manifest = corpus(records, Sources(kenlm=arpa), missing_harmful_pp="score", harmful_pp=(0.5, bound))
    assert manifest["ledger"]["dropped"] == {"blocklist": 0, "harmful_pp": 5, "quality_warnings": 0}
    assert manifest["ledger"]["notes"]["harmful_pp_scored"] == 15
    rows = pq.read_table(tmp_path / "corpus" / "documents").to_pylist()
    assert [row["harmful_pp"] for row in rows] == [model.perplexity(content) for content in contents]


def oscar_2201(shared: Path) -> list[dict[str, Any]]:
    lines = (shared / "oscar2201" / "data.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def shared_records(shared: Path) -> list[dict[str, Any]]:
    records = []
    for path in sorted((shared / "oscar2301" / "en_meta").glob("*.zst")):
        with pa.input_stream(str(path), compression="zstd") as stream:
            records += [json.loads(line) for line in stream.read().splitlines()]
    return records


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_the_lists_drop_exactly_what_the_annotated_shards_drop(
    shared: Path, corpus: Callable[..., dict[str, Any]], tmp_path: Path, compiled: bool
) -> None:
    records = shared_records(shared)
    unwanted = set(Configuration().drop_categories)
    expected = [
        number for number, record in enumerate(records, 1) if unwanted & set(record["metadata"]["categories"] or [])
    ]
    for record in records:
        del record["metadata"]["categories"]
        del record["metadata"]["sentence_identifications"]
        record["content"] = record["content"][:200]
    if compiled:
        compile_to(shared / "ut1", tmp_path / "index")
    manifest = corpus(records, Sources(tmp_path / "index" if compiled else shared / "ut1"))
    assert manifest["ledger"]["documents"] == 11_059
    assert manifest["ledger"]["dropped"]["blocklist"] == len(expected) == 462
    rows = pq.read_table(tmp_path / "corpus" / "documents", columns=["line", "reason"])
    dropped = rows.filter(pc.equal(rows["reason"].cast(pa.string()), "blocklist"))
    assert dropped["line"].to_pylist() == expected


@pytest.mark.shared
def test_real_records_are_kept_exactly_where_fasttext_itself_says_english(
    shared: Path, corpus: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    import fasttext

    records = oscar_2201(shared)
    model = shared / "models" / "lid.176.ftz"
    labels, probabilities = fasttext.load_model(str(model)).predict(
        [record["content"].replace("\n", " ") for record in records]
    )
    expected = [
        number
        for number, (label, probability) in enumerate(zip(labels, probabilities, strict=True), 1)
        if label[0] == "__label__en" and probability[0] >= 0.8
    ]
    settings = {"missing_harmful_pp": "keep", "drop_warnings": (), "language": "en", "rescore": True}
    corpus(records, Sources(language_model=model), **settings)
    rows = pq.read_table(tmp_path / "corpus" / "documents").to_pylist()
    kept = [row["line"] for row in rows if row["reason"] is None]
    assert kept == expected
    assert 0 < len(kept) < len(records) == 63


@pytest.mark.shared
def test_computed_warnings_drop_what_the_annotations_of_real_records_drop(
    shared: Path, corpus: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    records = oscar_2201(shared)
    expected = [record["metadata"].pop("annotation") for record in records]
    manifest = corpus(records, Sources(), missing_harmful_pp="keep", missing_warnings="compute")
    rows = pq.read_table(tmp_path / "corpus" / "documents").to_pylist()
    assert [row["quality_warnings"] for row in rows] == expected
    assert manifest["ledger"]["dropped"]["quality_warnings"] == sum(map(bool, expected))
    assert 0 < manifest["ledger"]["kept"] < 63
