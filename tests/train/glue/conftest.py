"""A small GLUE folder in the official layout and small checkpoints, both made of real parts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from symbert import SymbertConfig, SymbertForMaskedLM

WORDS = ["the", "a", "cat", "dog", "bird", "man", "sees", "hears", "likes", "red", "green", "small", "old"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CheckpointFactory = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_tsv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CoLA: a sentence is acceptable iff it has a red thing. RTE: iff both sentences have the same subject."""
    folder = tmp_path_factory.mktemp("glue")
    cola, rte, stsb = [], [], []
    for number in range(48):
        subject, other, verb = WORDS[2 + number % 4], WORDS[2 + number // 4 % 4], WORDS[6 + number % 3]
        colour = "red" if number % 2 else "green"
        padding = " ".join(["old"] * (number % 7))
        cola.append(["gj04", str(number % 2), "", f"the {colour} {padding} {subject} {verb} a {other}"])
        pair = [f"the {subject} {verb} a {other}", f"a {other} {verb} {padding}"]
        rte.append([str(number), *pair, "entailment" if subject == other else "not_entailment"])
        stsb.append([*["-"] * 7, *pair, f"{number % 5}.{number % 10}"])
    rte_header = ["index", "sentence1", "sentence2", "label"]
    stsb_header = [*["-"] * 7, "sentence1", "sentence2", "score"]
    for name, header, rows in (("CoLA", [], cola), ("RTE", rte_header, rte), ("STS-B", stsb_header, stsb)):
        for file, part in (("train.tsv", rows[:40]), ("dev.tsv", rows[30:])):
            write_tsv(folder / name / file, [*([header] if header else []), *part])
    return folder


def save_tokenizer(folder: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFactory:
    """Makes a checkpoint of an operator: 3 heads of 7, 23 tokens, 32 positions."""
    made: dict[str, Path] = {}
    logging.disable_progress_bar()  # they would mix with what a command writes

    def make(operator: str = "pairwise") -> Path:
        if operator not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / operator
            with torch.random.fork_rng():
                torch.manual_seed(0)
                SymbertForMaskedLM(
                    SymbertConfig(
                        vocab_size=23,
                        hidden_size=21,
                        num_attention_heads=3,
                        num_hidden_layers=2,
                        intermediate_size=34,
                        max_position_embeddings=32,
                        attention_operator=operator,
                    )
                ).save_pretrained(folder)
            save_tokenizer(folder)
            made[operator] = folder
        return made[operator]

    return make
