"""Harmful perplexity: how surprised a KenLM model of harmful pages is by a document, as OSCAR's ungoliant has it."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from durable.errors import with_hint
from durable.files import file_sha256
from oscar_prep.errors import PrepareError

SHOWN_CHARACTERS = 200
# Unicode's property White_Space, by which ungoliant splits. Python's str.split also splits at U+001C to U+001F, and
# KenLM itself at ASCII's alone: one no-break space inside a page would then make two words one unknown word.
_WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


class HarmfulModel:
    """A KenLM model file (.arpa, compressed or not, or KenLM's binary format).

    Not to be pickled: every process loads its own, and the binary format is mapped, so that they share memory.
    """

    def __init__(self, path: Path) -> None:
        """Raises PrepareError if `path` is missing, no KenLM model, or cut short."""
        try:
            import kenlm
        except ImportError:
            raise with_hint(
                PrepareError("scoring harmful perplexity needs the package kenlm, which is not installed"),
                "pip install 'symbert[scoring]'",
            ) from None
        if not path.is_file():
            raise PrepareError(f"{path} does not exist, expected a KenLM model (.arpa or binary)")
        options = kenlm.Config()
        options.show_progress = False
        options.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.LanguageModel(str(path), options)
        except OSError as error:
            raise PrepareError(f"{path} is not a whole KenLM model: {_reason(error)}") from None

    def perplexity(self, content: str) -> float:
        """10^(−Σ log10 p / (words + 1)) of the whole document as one sentence.

        Words are split at Unicode white space and keep their case; `<s>` is the context of the first, `</s>` is
        predicted after the last and counted. The sum is KenLM's own, in single precision as ungoliant's: after
        3,000 words it may differ from an exact one by 1e-4 of the perplexity.
        """
        words = [word for word in _WHITE_SPACE.split(content) if word]
        if "\0" in content:  # the binding would end the word there
            words = ["<unk>" if "\0" in word else word for word in words]
        return float(10.0 ** (-self._model.score(" ".join(words)) / (len(words) + 1)))

    def perplexities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """The perplexity of each of N documents; shape (N,)."""
        return np.fromiter(map(self.perplexity, texts), np.float64, len(texts))


def kenlm_sha256(path: Path) -> str:
    """The sha256 of a model file, part of a corpus's identity. Raises PrepareError if it is not there."""
    if not path.is_file():
        raise PrepareError(f"{path} does not exist, expected a KenLM model (.arpa or binary)")
    return file_sha256(path)


def _reason(error: OSError) -> str:
    """What KenLM says in brackets, without the place in its own source; it may quote a whole line of the file."""
    text = str(error)
    inside = text[text.find("(") + 1 : text.rfind(")")]
    reason = re.sub(r"^\S+ in .*? threw \w+ because `.*?'\. |^\S+ in .*? threw \w+\. ", "", inside)
    return reason if len(reason) <= SHOWN_CHARACTERS else f"{reason[:SHOWN_CHARACTERS]}…"
