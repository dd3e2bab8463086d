import json
import shutil
from pathlib import Path

import pytest

from durable.files import file_sha256
from oscar_prep.errors import PrepareError
from oscar_prep.language import LanguageModel, checked_sha256
from tests.oscar_prep.models import SENTENCES, train_language_model


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_language_model(tmp_path_factory.mktemp("fasttext"))


def test_each_document_has_its_language_and_probability(tiny_model: Path) -> None:
    identified = LanguageModel(tiny_model).identify([*SENTENCES.values()] * 700)
    assert identified.labels == [*SENTENCES] * 700
    assert (identified.probabilities > 0.5).all()


def test_a_document_is_judged_whole_whatever_its_lines(tiny_model: Path) -> None:
    model = LanguageModel(tiny_model)
    lines, line = model.identify([SENTENCES["fr"].replace(" ", "\n"), SENTENCES["fr"]]).probabilities
    assert lines == line


def test_no_documents_have_no_languages(tiny_model: Path) -> None:
    assert LanguageModel(tiny_model).identify([]).labels == []


def test_a_model_cut_short_is_refused_before_it_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "tiny.bin"
    cut.write_bytes(tiny_model.read_bytes()[:-100])
    shutil.copy(tiny_model.with_name("tiny.bin.sha256"), tmp_path)
    with pytest.raises(PrepareError, match=r"tiny\.bin is damaged: its sha256"):
        LanguageModel(cut)


def test_an_unknown_model_is_refused_until_its_sha256_is_written_down(tiny_model: Path, tmp_path: Path) -> None:
    own = shutil.copy(tiny_model, tmp_path / "own.bin")
    with pytest.raises(PrepareError, match=r"none of lid\.176\.ftz, lid\.176\.bin") as refusal:
        LanguageModel(own)
    assert f"sha256sum {own} > {own}.sha256" in refusal.value.__notes__[0]
    (tmp_path / "own.bin.sha256").write_text(file_sha256(own))
    assert LanguageModel(own).sha256 == file_sha256(own)


def test_a_whole_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("hello")
    (tmp_path / "model.sha256").write_text(file_sha256(tmp_path / "model"))
    with pytest.raises(PrepareError, match="is no fastText model"):
        LanguageModel(tmp_path / "model")


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="does not exist"):
        checked_sha256(tmp_path / "lid.176.bin")


@pytest.mark.shared
def test_the_published_model_is_known_and_says_what_fasttext_says(shared: Path) -> None:
    import fasttext

    path = shared / "models" / "lid.176.ftz"
    direct = fasttext.load_model(str(path))
    records = (shared / "oscar2201" / "data.jsonl").read_text("utf-8").split("\n")
    contents = [json.loads(line)["content"] for line in records if line]
    identified = LanguageModel(path).identify(contents)
    for content, label, probability in zip(contents, identified.labels, identified.probabilities, strict=True):
        ((expected,),), ((value,),) = direct.predict([content.replace("\n", " ")])
        assert (f"__label__{label}", probability) == (expected, float(value))
