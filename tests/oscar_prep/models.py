"""A fastText model of three languages, trained in a moment."""

import subprocess
import sys
from pathlib import Path

from durable.files import file_sha256

SENTENCES = {
    "en": "This is certainly an English sentence.",
    "fr": "Ceci est une phrase en français.",
    "de": "Das ist ein deutscher Satz.",
}
TRAIN = """
import sys
import fasttext
options = {"dim": 16, "minn": 2, "maxn": 3, "bucket": 1000, "epoch": 200, "thread": 1, "verbose": 0}
fasttext.train_supervised(sys.argv[1], **options).save_model(sys.argv[2])
"""


def train_language_model(folder: Path) -> Path:
    """The model's file, with its sha256 beside it."""
    (folder / "train").write_text("".join(f"__label__{name} {text}\n" * 20 for name, text in SENTENCES.items()))
    # In a process of its own: fasttext 0.9.3 trains to NaN where memory has been used before.
    subprocess.run([sys.executable, "-c", TRAIN, folder / "train", folder / "tiny.bin"], check=True)
    (folder / "tiny.bin.sha256").write_text(f"{file_sha256(folder / 'tiny.bin')}  tiny.bin\n")
    return folder / "tiny.bin"
