"""A small KenLM model, written as text: real n-grams of real words, back-off weights included."""

import itertools
from collections import Counter
from math import log10
from pathlib import Path


def write_arpa(path: Path, text: str) -> Path:
    """A bigram model of `text` with absolute discounting; one sentence a line."""
    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        words = ["<s>", *line.split(), "</s>"]
        unigrams.update(words[1:])
        bigrams.update(itertools.pairwise(words))
    return _write(path, unigrams, bigrams)


def _write(path: Path, unigrams: Counter[str], bigrams: Counter[tuple[str, str]]) -> Path:
    total = sum(unigrams.values())
    starts = Counter(first for first, _ in bigrams.elements())
    unigrams["<unk>"] = 1
    lines = ["\\data\\", f"ngram 1={len(unigrams) + 1}", f"ngram 2={len(bigrams)}", "", "\\1-grams:", "0\t<s>\t-0.5"]
    lines += [f"{log10(count / (total + 1)):.6f}\t{word}\t-0.3" for word, count in sorted(unigrams.items())]
    lines += ["", "\\2-grams:"]
    lines += [
        f"{log10(max(count - 0.5, 0.1) / starts[first]):.6f}\t{first} {second}"
        for (first, second), count in sorted(bigrams.items())
    ]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), "utf-8")
    return path
