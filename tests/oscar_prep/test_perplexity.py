import json
import re
from pathlib import Path

import kenlm
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_prep.errors import PrepareError
from oscar_prep.perplexity import HarmfulModel
from tests.oscar_prep.arpa import write_arpa

TEXT = "the cat sat on the mat\nThe dog saw the cat\ncafé du monde\nthe cat ran\n"
UNICODE_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_WHITE_SPACE = "\x1c\x1d\x1e\x1f\u200b\ufeff\u180e"


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arpa(tmp_path_factory.mktemp("kenlm") / "harmful.arpa", TEXT)


@pytest.fixture(scope="module")
def model(arpa: Path) -> HarmfulModel:
    return HarmfulModel(arpa)


@pytest.fixture(scope="module")
def direct(arpa: Path) -> kenlm.LanguageModel:
    return kenlm.LanguageModel(str(arpa))


@pytest.mark.parametrize("content", ["the cat", "The cat", "unseen words only", "the", "", "café du monde the cat ran"])
def test_a_document_scores_as_kenlm_scores_the_sentence(
    model: HarmfulModel, direct: kenlm.LanguageModel, content: str
) -> None:
    words = len(content.split()) + 1
    assert model.perplexity(content) == pytest.approx(10 ** (-direct.score(content) / words), rel=1e-5)
    assert model.perplexity(content) == pytest.approx(direct.perplexity(content), rel=1e-5)


def test_lines_are_one_sentence_and_case_is_kept(model: HarmfulModel) -> None:
    assert model.perplexity("the cat\nran") == model.perplexity("the cat ran")
    assert model.perplexity("THE cat") != model.perplexity("the cat")


@pytest.mark.parametrize("space", UNICODE_WHITE_SPACE)
def test_words_are_split_at_all_unicode_white_space(model: HarmfulModel, space: str) -> None:
    assert model.perplexity(f"{space}the{space}{space}cat{space}") == model.perplexity("the cat")


@pytest.mark.parametrize("character", NOT_WHITE_SPACE)
def test_words_are_not_split_at_what_is_no_white_space(model: HarmfulModel, character: str) -> None:
    assert model.perplexity(f"the{character}cat") == model.perplexity("unseen") != model.perplexity("the cat")


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(f"{UNICODE_WHITE_SPACE}{NOT_WHITE_SPACE}\0"), max_size=60
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_any_text_has_a_finite_perplexity(model: HarmfulModel, text: str) -> None:
    assert 0 < model.perplexity(text) < 1e9


def test_a_word_with_a_nul_is_one_unknown_word(model: HarmfulModel) -> None:
    assert model.perplexity("the\0cat") == model.perplexity("unseen")


def test_many_documents_score_as_one_by_one(model: HarmfulModel) -> None:
    contents = ["the cat", "", "the\u00a0dog"]
    assert model.perplexities(contents).tolist() == [model.perplexity(content) for content in contents]
    assert model.perplexities([]).tolist() == []


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.99])
def test_a_model_cut_short_is_refused(arpa: Path, tmp_path: Path, share: float) -> None:
    content = arpa.read_bytes()
    (tmp_path / "cut.arpa").write_bytes(content[: int(share * len(content))])
    with pytest.raises(PrepareError, match=r"cut\.arpa is not a whole KenLM model"):
        HarmfulModel(tmp_path / "cut.arpa")


def test_a_refusal_quotes_no_more_than_the_beginning_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b'{"content": "' + 5000 * b"long " + b'"}\n')
    with pytest.raises(PrepareError, match="is not a whole KenLM model") as error:
        HarmfulModel(tmp_path / "records.jsonl")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"not a model\n", bytes(1000)])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(PrepareError, match="other is not a whole KenLM model"):
        HarmfulModel(tmp_path / "other")


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_model_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PrepareError, match="does not exist"):
        HarmfulModel(tmp_path / name)


@pytest.mark.slow
@pytest.mark.shared
def test_real_documents_score_as_kenlm_computes_them_word_by_word(shared: Path, tmp_path: Path) -> None:
    with pa.input_stream(str(shared / "oscar2301/en_meta/en_meta_part_6.jsonl.zst"), compression="zstd") as stream:
        contents = [json.loads(line)["content"] for line in stream.read().splitlines()]
    path = write_arpa(tmp_path / "real.arpa", "\n".join(contents[::40]))
    model, direct = HarmfulModel(path), kenlm.LanguageModel(str(path))
    contents += [content.replace(" ", "\u00a0", 50) for content in contents[:20]]
    assert any("\u00a0" in content for content in contents)
    for content in contents:
        words = [word for word in re.split(r"\s", content) if word and word not in "\x1c\x1d\x1e\x1f"]
        log_probability, before, after = np.float32(0), kenlm.State(), kenlm.State()
        direct.BeginSentenceWrite(before)
        for word in [*words, "</s>"]:
            log_probability += np.float32(direct.BaseScore(before, word, after))
            before, after = after, before
        expected = 10 ** (-float(log_probability) / (len(words) + 1))
        assert model.perplexity(content) == pytest.approx(expected, rel=1e-6)
        assert model.perplexity(content) == pytest.approx(direct.perplexity(" ".join(words)), rel=1e-4)
