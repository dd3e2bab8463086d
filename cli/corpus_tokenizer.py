"""The tokenizer of a corpus as `symbert prepare` takes it: one that AutoTokenizer opens as it packs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oscar_prep.tokenizer import CorpusTokenizer


def find_tokenizer(source: str) -> "CorpusTokenizer":
    """The tokenizer of a folder or of the hub. Raises PrepareError, or TrainError if AutoTokenizer gives other ids.

    Transformers, whose import takes seconds, is asked only where the two files of JSON do not tell.
    """
    from oscar_prep.tokenizer import CorpusTokenizer

    found = CorpusTokenizer.find(source)
    if found.opens_alike:
        return found
    from train.tokenizer import settings_to_add

    with tempfile.TemporaryDirectory(prefix="symbert-tokenizer-") as folder:
        found.save(saved := Path(folder) / "tokenizer")
        return found.with_settings(settings_to_add(saved, called=found.folder))
