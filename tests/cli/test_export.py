import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertConfig, pipeline

from cli.main import run
from report.card import FORMULAS
from symbert import OPERATORS, SymbertConfig, SymbertForMaskedLM, SymbertForQuestionAnswering
from symbert.configuration_symbert import LEAST_TRANSFORMERS

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "capital",
    "of",
    "france",
    "is",
    "paris",
    "rome",
    "big",
    ".",
]


def checkpoint(folder: Path, operator: Any = "pairwise", head: Any = SymbertForMaskedLM, **others: Any) -> Path:
    """A tiny checkpoint with random weights and a real WordPiece tokenizer."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 34}
    config = SymbertConfig(
        **sizes, vocab_size=len(WORDS), max_position_embeddings=19, attention_operator=operator, **others
    )
    model = head(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    BertTokenizerFast(tokenizer_object=BertWordPieceTokenizer(vocabulary)._tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("operator", ["original", "symmetric", "pairwise", "shared"])
def test_an_exported_bert_gives_the_same_fill_mask_answers(operator: str, tmp_path: Path) -> None:
    origin = checkpoint(tmp_path / "origin", operator)
    assert run(["export", str(origin), "--out", str(tmp_path / "bert"), "--format", "bert"]) == 0
    answers = []
    for folder in (origin, tmp_path / "bert"):
        model = AutoModelForMaskedLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        answers.append(
            pipeline("fill-mask", model=model, tokenizer=tokenizer)("the [MASK] of france is paris .", top_k=5)
        )
    assert type(model).__name__ == "BertForMaskedLM"
    tokens = [[one["token"] for one in five] for five in answers]
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) == 5
    assert not list((tmp_path / "bert").glob("*.py"))


def test_export_reports_the_difference_of_the_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = checkpoint(tmp_path / "origin")
    assert run(["export", str(origin), "--out", str(tmp_path / "bert"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "bert"
    assert "tokenizer.json" in facts["tokenizer"]
    assert 0 <= facts["largest_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_exported_graph_computes_the_same_in_onnxruntime(
    operator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    origin = checkpoint(tmp_path / "origin", [operator, "original"], norm_placement="sub", type_vocab_size=0)
    assert run(["export", str(origin), "--out", str(tmp_path / "onnx"), "--format", "onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}
    (found,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
    expected = AutoModelForMaskedLM.from_pretrained(origin)(**inputs).logits
    torch.testing.assert_close(torch.from_numpy(found)[ids != 0], expected[ids != 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (19, "- Inputs are at most 19 tokens."),
        (
            7,
            "- Inputs are at most 19 tokens; pre-training never reached positions 8 to 19: its samples had 7 tokens.",
        ),
    ],
)
def test_the_card_names_positions_that_were_never_trained(tmp_path: Path, trained: int, said: str) -> None:
    origin = checkpoint(tmp_path / "origin", trained_positions=trained)
    assert run(["export", str(origin), "--out", str(tmp_path / "hub"), "--format", "hub"]) == 0
    assert said in (tmp_path / "hub" / "README.md").read_text("utf-8").splitlines()


@pytest.mark.slow
def test_a_graph_of_another_head_has_that_heads_outputs(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    origin = checkpoint(tmp_path / "origin", head=SymbertForQuestionAnswering)
    assert run(["export", str(origin), "--out", str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["start_logits", "end_logits"]


@pytest.mark.parametrize(
    ("others", "error"),
    [
        ({"operator": "additive"}, "error: layer 0 cannot be folded: its operator is additive"),
        ({"norm_placement": "sub"}, "error: a model with `norm_placement` sub cannot be folded"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_folded_leaves_nothing_behind(
    others: dict[str, Any], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = checkpoint(tmp_path / "origin", **others)
    assert run(["export", str(origin), "--out", str(tmp_path / "bert")]) == 1
    assert error in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]


@pytest.mark.parametrize("form", ["bert", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_whose_outputs_are_no_numbers_fails_and_leaves_nothing_behind(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = checkpoint(tmp_path / "origin")
    weights = load_file(origin / "model.safetensors")
    save_file({name: weight * 1e30 for name, weight in weights.items()}, origin / "model.safetensors", {"format": "pt"})
    assert run(["export", str(origin), "--out", str(tmp_path / "new"), "--format", form]) == 1
    assert "error: output 0 of the export differs from the checkpoint's by nan" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]


@pytest.mark.slow
@pytest.mark.parametrize(("norm_placement", "model_type"), [("post", "bert"), ("sub", "symbert")])
def test_the_configuration_beside_a_graph_is_that_of_a_bert_where_the_model_folds(
    norm_placement: str, model_type: str, tmp_path: Path
) -> None:
    origin = checkpoint(tmp_path / "origin", norm_placement=norm_placement)
    assert run(["export", str(origin), "--out", str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    config = json.loads((tmp_path / "onnx/config.json").read_text("utf-8"))
    assert config["model_type"] == model_type
    assert config["architectures"] == [f"{model_type.title()}ForMaskedLM"]
    assert (config["vocab_size"], config["hidden_size"]) == (len(WORDS), 21)
    assert not {"_name_or_path", "auto_map"} & config.keys()
    if model_type == "bert":
        assert type(AutoConfig.from_pretrained(tmp_path / "onnx")) is BertConfig


def test_export_refuses_an_existing_folder_a_missing_checkpoint_and_an_unknown_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = checkpoint(tmp_path / "origin")
    assert run(["export", str(origin), "--out", str(origin)]) == 1
    assert "origin exists already, expected a new folder\n\nhint: give another --out" in capsys.readouterr().err
    assert run(["export", str(tmp_path / "none"), "--out", str(tmp_path / "bert")]) == 1
    assert "none does not exist, expected a checkpoint or run folder" in capsys.readouterr().err
    assert run(["export", str(origin), "--out", str(tmp_path / "bert"), "--format", "gguf"]) == 2
    assert "gguf" in capsys.readouterr().err
    assert not (tmp_path / "bert").exists()


def test_a_hub_folder_holds_the_code_and_a_card_with_what_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = checkpoint(tmp_path / "origin", ["pairwise", "original"])
    (tmp_path / "corpus").mkdir()
    ledger = {
        "documents": 11_059, "kept": 6_175, "invalid": 0, "dropped": {"blocklist": 462, "harmful_pp": 309},
        "tokens": 17_966_769, "samples": {"train": 35_088}, "tail": 1_713,
    }  # fmt: skip
    manifest = {
        "format": "symbert corpus", "format_version": 1, "sequence_length": 512, "configuration": {}, "units": [],
        "splits": {"train": {"rows": 35_088}}, "ledger": ledger, "corpus_hash": "d0f9",
        "tokenizer": {"name": "bert-base-uncased", "sha256": "0742"},
    }  # fmt: skip
    (tmp_path / "corpus" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "table.md").write_text("| model | GLUE |\n|---|---|\n| mine | 79.36 |\n", "utf-8")
    arguments = ["--corpus", str(tmp_path / "corpus"), "--glue", str(tmp_path / "glue")]
    assert run(["export", str(origin), "--out", str(tmp_path / "my-model"), "--format", "hub", *arguments]) == 0
    card = (tmp_path / "my-model" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    for part in (
        "# my-model", "qUqᵀ / √d", "From the first layer to the last: pairwise, original.", "| documents | 11,059 |",
        "| dropped by blocklist | 462 |", "| mine | 79.36 |", "AutoModelForMaskedLM", '"revision": "COMMIT"',
        f"It takes transformers {'.'.join(map(str, LEAST_TRANSFORMERS))} or newer.",
        "## Training\n\nNo run folder was given: not recorded.",
    ):  # fmt: skip
        assert part in card
    names = {path.name for path in (tmp_path / "my-model").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_symbert.py", "attention.py", "tokenizer.json"} <= names
    assert json.loads((tmp_path / "my-model" / "config.json").read_text("utf-8"))["auto_map"]["AutoModelForMaskedLM"]
    capsys.readouterr()
    assert run(["push", str(tmp_path / "my-model"), "--repo", "me/my-model", "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["commit"] is None
    assert set(facts["files"]) == names
    assert facts["bytes"] == sum(path.stat().st_size for path in (tmp_path / "my-model").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: Expecting"),
        (
            '{"format": "symbert corpus", "format_version": 1, "corpus_hash": "a", "sequence_length": 8, "units": [], '
            '"configuration": {}, "tokenizer": {"name": "b", "sha256": "c"}, "splits": {}, "ledger": []}',
            "is damaged: `ledger` is [], expected an o",
        ),
    ],
)
def test_a_card_of_a_damaged_manifest_is_refused_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "corpus").mkdir()
    path = tmp_path / "corpus" / "manifest.json"
    path.write_text(content)
    arguments = ["--format", "hub", "--corpus", str(path.parent)]
    assert run(["export", str(checkpoint(tmp_path / "origin")), "--out", str(tmp_path / "new"), *arguments]) == 1
    assert f"error: {path} {message}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_card_has_a_formula_for_every_operator() -> None:
    assert FORMULAS.keys() == OPERATORS.keys()


def test_a_run_stands_for_its_newest_checkpoint_and_its_card_tells_the_losses(tmp_path: Path) -> None:
    from tests.corpora import write_corpus
    from tests.train.tiny import tiny_recipe
    from train.pretrain import pretrain

    corpus, run_folder = write_corpus(tmp_path / "corpus"), tmp_path / "run"
    outcome = pretrain(corpus, run_folder, tiny_recipe("shared"), device="cpu")
    assert run(["export", str(run_folder), "--out", str(tmp_path / "hub"), "--format", "hub"]) == 0
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert f"| 20 | 5,120 | {outcome.last_evaluation_loss:.4f} |" in card
    assert "| steps | 20, 4 of them warm-up |" in card
    assert run(["export", str(run_folder), "--out", str(tmp_path / "bert")]) == 0
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "bert").config.model_type == "bert"


def test_push_refuses_what_is_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["push", str(tmp_path), "--repo", "me/model", "--dry-run"]) == 1
    errors = capsys.readouterr().err
    assert "holds no config.json, expected an exported folder" in errors
    assert "hint: symbert export CHECKPOINT --format hub --out NEW" in errors  # export refuses a folder that exists
    origin = checkpoint(tmp_path / "origin")
    (origin / "state.json").write_text("{}", "utf-8")
    assert run(["push", str(origin), "--repo", "me/model", "--dry-run"]) == 1
    assert "is a checkpoint of a run, expected an exported folder: state.json" in capsys.readouterr().err


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What `push` takes for an export, with what does not belong to it."""
    folder = tmp_path / "my-model"
    for name in ("config.json", "model.safetensors", "onnx/model.onnx", ".env", ".git/config", "onnx/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_push_uploads_no_hidden_files_and_names_them(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    uploaded: list[str] = []

    def create_commit(_: HfApi, __: str, operations: list[Any], **___: Any) -> Any:
        uploaded.extend(operation.path_in_repo for operation in operations)
        return type("Commit", (), {"oid": "abc"})

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    assert run(["push", str(exported), "--repo", "me/my-model", "--json"]) == 0
    output = capsys.readouterr()
    names = ["config.json", "model.safetensors", "onnx/model.onnx"]
    assert list(json.loads(output.out)["files"]) == uploaded == names
    assert output.err == "left out, for it is hidden: .env, .git, onnx/.DS_Store\n"


@pytest.mark.parametrize("name", ["link.json", "onnx/folder"])
def test_push_refuses_links(exported: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (exported.parent / "secret").mkdir()
    (exported / name).symlink_to(exported.parent / "secret")
    assert run(["push", str(exported), "--repo", "me/my-model", "--dry-run"]) == 1
    assert f"error: {exported / name} is a link to {exported.parent / 'secret'}, expected" in capsys.readouterr().err
