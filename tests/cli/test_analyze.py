import json
from pathlib import Path

import pytest
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast

from cli.main import run
from symbert import SymbertConfig, SymbertForMaskedLM

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "capital", "of", "france", "is", "paris"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 34}
    operators = ["pairwise", "additive"]
    config = SymbertConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=6, attention_operator=operators)
    SymbertForMaskedLM(config).save_pretrained(tmp_path / "model")
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    BertTokenizerFast(tokenizer_object=BertWordPieceTokenizer(vocabulary)._tokenizer).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


def test_analyze_prints_every_layer_and_as_json_every_head(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the capital of france is paris\n\nparis is the capital\nfrance\n", "utf-8")
    assert run(["analyze", str(checkpoint), "--text", str(text), "--max-sequences", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == {"sequences": 2, "tokens": 12}  # both cut at the 6 positions of the model
    assert [len(layer["heads"]) for layer in found["layers"]] == [3, 0]
    assert len(found["layers"][0]["heads"][0]["singular_values"]) == 7
    assert run(["analyze", str(checkpoint), "--text", str(text)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "operator", "symmetry", "distance_from_identity", "entropy", "asymmetry"]
    assert lines[2].split() == ["1", "additive", "-", "-", "-", "-"]
    assert float(lines[3].split()[1]) == pytest.approx(found["means"]["symmetry"], abs=1e-4)


@pytest.mark.parametrize("name", ["heads.svg", "heads.png"])
def test_analyze_draws_the_heads(checkpoint: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    assert run(["analyze", str(checkpoint), "--plot", str(tmp_path / name)]) == 0
    start = (tmp_path / name).read_bytes()[:200]
    assert b"<svg" in start or b"<?xml" in start or start.startswith(b"\x89PNG")


def test_analyze_refuses_what_it_cannot_read_or_draw(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blank.txt").write_text("\n \n", "utf-8")
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    for arguments, error in (
        ([str(tmp_path / "none")], "none does not exist, expected a checkpoint or run folder"),
        ([str(checkpoint), "--text", str(tmp_path / "none.txt")], "none.txt is not a file, expected a text"),
        ([str(checkpoint), "--text", str(tmp_path / "blank.txt")], "blank.txt holds no text"),
        ([str(checkpoint), "--text", str(tmp_path / "latin.txt")], "latin.txt is not UTF-8 text"),
        ([str(checkpoint), "--plot", str(tmp_path / "heads.bmpx")], "heads.bmpx is no picture that can be drawn"),
    ):
        assert run(["analyze", *arguments]) == 1
        output = capsys.readouterr()
        assert error in output.err
        assert output.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.txt", "latin.txt", "model"]
