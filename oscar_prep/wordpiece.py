"""Train a WordPiece tokenizer like BERT's, the same from the same text every time.

`tokenizers` merges the most frequent pairs first and breaks ties by the ids of their parts. It gives those ids in the
order of a hash table that is seeded anew in every process, so two trainings on one text differ: four runs on the
Python library's documentation gave four orders and two different vocabularies. Here every character gets its id
first, in an order of our own; then no tie is left to chance.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from durable.errors import with_hint
from durable.files import whole_folder
from oscar_prep.errors import PrepareError

# BERT's, [PAD] first so that it is 0; the vocabulary keeps this order.
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CONTINUING = "##"
# The defaults of tokenizers' BertWordPieceTokenizer, which the papers leave open.
ALPHABET_LIMIT = 1_000
MIN_FREQUENCY = 2

Texts = Callable[[], Iterable[list[str]]]
"""Starts another pass over the same text, batch by batch."""


def train_wordpiece(texts: Texts, vocabulary_size: int, *, lower_case: bool = True) -> Tokenizer:
    """A tokenizer with at most `vocabulary_size` tokens, ready for use: [CLS] A [SEP] B [SEP].

    The vocabulary is the special tokens, the `ALPHABET_LIMIT` most frequent characters, each of these that may
    continue a word once more behind `##`, then pieces by descending frequency of their merge. A text too small for
    `vocabulary_size` gives fewer tokens. Two passes over the text: one for the characters, one for the words.

    Raises PrepareError if the text is empty, or `vocabulary_size` does not hold the characters.
    """
    tokenizer = _untrained(lower_case)
    alphabet = _alphabet(texts(), tokenizer.normalizer)
    continuing = [CONTINUING + character for character in alphabet if _continues(character, tokenizer)]
    first = [*SPECIAL_TOKENS.values(), *alphabet, *continuing]
    if not alphabet:
        raise PrepareError("the input holds no text to train a tokenizer on")
    if len(first) > vocabulary_size:
        raise with_hint(
            PrepareError(
                f"a vocabulary of {vocabulary_size:,} does not hold the {len(first):,} characters of the text"
            ),
            f"--vocabulary-size {8 * len(first)}",
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return _complete(tokenizer.get_vocab(with_added_tokens=False), lower_case)


def check_new_folder(folder: Path) -> None:
    """Raises PrepareError if `folder` is there and holds anything: a tokenizer is never overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise with_hint(PrepareError(f"{folder} exists already"), "give a new folder to --out")


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder that AutoTokenizer.from_pretrained reads, vocab.txt included, whole or not at all."""
    vocabulary = tokenizer.get_vocab()
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.normalizer.lowercase,
        "model_max_length": 512,
        **SPECIAL_TOKENS,
    }
    with whole_folder(folder, name="tokenizer") as partial:
        tokenizer.save(str(partial / "tokenizer.json"))
        lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
        (partial / "vocab.txt").write_text(lines, "utf-8")
        (partial / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _untrained(lower_case: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({}, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _complete(vocabulary: dict[str, int], lower_case: bool) -> Tokenizer:
    # The trainer took the characters for special tokens; a fresh tokenizer knows none but BERT's.
    tokenizer = _untrained(lower_case)
    tokenizer.model = models.WordPiece(
        vocabulary, unk_token=SPECIAL_TOKENS["unk_token"], continuing_subword_prefix=CONTINUING
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUING)
    return tokenizer


def _alphabet(batches: Iterable[list[str]], normalizer: normalizers.Normalizer) -> list[str]:
    """The most frequent characters after normalisation, equal counts by code point, sorted by code point."""
    occurrences = np.zeros(sys.maxunicode + 1, np.int64)
    for batch in batches:
        codes = np.frombuffer("".join(batch).encode("utf-32-le"), np.uint32)
        occurrences += np.bincount(codes, minlength=len(occurrences))
    counts: Counter[str] = Counter()
    # BERT's normaliser looks at one character at a time, so each kind of character need be normalised once only.
    for code in np.flatnonzero(occurrences).tolist():
        for character in normalizer.normalize_str(chr(code)):
            counts[character] += int(occurrences[code])
    frequent = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    return sorted(character for _, character in frequent[:ALPHABET_LIMIT])


def _continues(character: str, tokenizer: Tokenizer) -> bool:
    """Whether BERT ever leaves this character inside a word: punctuation and Chinese always stand alone."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str("a" + character))) == 1
