"""Language identification with fastText, where a corpus has none or is not believed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from durable.errors import with_hint
from durable.files import file_sha256
from oscar_prep.errors import PrepareError

KNOWN_MODELS = {
    "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83": "lid.176.ftz",
    "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e": "lid.176.bin",
}
"""fastText's published models by sha256."""

_PREFIX = "__label__"
_AT_ONCE = 1024


class Identified(NamedTuple):
    """The likeliest language of N documents, None where the model has none, and its probability."""

    labels: list[str | None]
    probabilities: npt.NDArray[np.float64]


def checked_sha256(path: Path) -> str:
    """The sha256 of a model file that may be loaded.

    fastText loads a file that was cut short without an error, then predicts nonsense, crashes or hangs. So the file
    must be one of KNOWN_MODELS, or agree with `<file>.sha256` beside it, as sha256sum writes it. Raises PrepareError.
    """
    if not path.is_file():
        raise PrepareError(f"{path} does not exist, expected a fastText model such as lid.176.bin")
    found = file_sha256(path)
    if found in KNOWN_MODELS:
        return found
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        raise with_hint(
            PrepareError(f"{path} is none of {', '.join(KNOWN_MODELS.values())} as published: damaged, or cut short?"),
            f"if it is another model and whole: sha256sum {path} > {beside}",
        )
    expected = beside.read_text("utf-8").split()[:1]
    if expected != [found]:
        raise PrepareError(f"{path} is damaged: its sha256 is not the one in {beside}")
    return found


class LanguageModel:
    """A fastText model that tells the language of whole documents. Not to be pickled: every process loads its own."""

    def __init__(self, path: Path) -> None:
        """Raises PrepareError if the file may not be loaded (see `checked_sha256`)."""
        self.sha256 = checked_sha256(path)
        try:
            import fasttext
        except ImportError:
            raise with_hint(
                PrepareError("identifying languages needs the package fasttext, which is not installed"),
                "pip install 'symbert[scoring]'",
            ) from None
        try:
            self._model = fasttext.load_model(str(path))
        except (ValueError, RuntimeError) as error:
            raise PrepareError(f"{path} is no fastText model: {error}") from None

    def identify(self, contents: Sequence[str]) -> Identified:
        """The language of each document, line ends read as spaces."""
        labels: list[str | None] = []
        probabilities: list[float] = []
        for first in range(0, len(contents), _AT_ONCE):
            texts = [text.replace("\n", " ") for text in contents[first : first + _AT_ONCE]]
            # The form for one text raises under numpy 2 (fasttext 0.9.3); the form for lists does not.
            for names, values in zip(*self._model.predict(texts), strict=True):
                labels.append(_label(names))
                probabilities.append(float(values[0]) if len(values) else 0.0)
        return Identified(labels, np.array(probabilities, np.float64))


def _label(names: Sequence[str]) -> str | None:
    return names[0].removeprefix(_PREFIX) if names else None
