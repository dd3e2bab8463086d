"""The checkpoints under test: found, and identified by their weights."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from durable.checked import NameInside, Shape, checked, read_json
from durable.errors import with_hint
from durable.files import file_sha256
from symbert.checkpoint import refuse_non_finite, refuse_quantized, what_else
from train.checkpoint import EXPECTED_MODEL, STATE, WEIGHTS, check_model, newest_valid, step_of
from train.errors import TrainError

WORD_EMBEDDINGS = "word_embeddings.weight"
INDEX = "model.safetensors.index.json"
WHICH = ("last", "all", "log")
"""Which checkpoints of a run are meant."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Keys of config.json that say who wrote it, not what the model computes.
BOOKKEEPING = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "trained_positions", "transformers_version"}
)
# Likewise of tokenizer_config.json; model_max_length is the protocol's to say.
TOKENIZER_BOOKKEEPING = frozenset({"name_or_path", "transformers_version", "model_max_length", "backend", "is_local"})


@dataclass(frozen=True)
class Subject:
    """A checkpoint whose GLUE scores are wanted."""

    name: str
    folder: Path
    weights: str
    """sha256 of the weights' file; of several files, of their hashes in name order."""
    tokenizer: str
    """sha256 of all that decides a text's tokens: the words, and settings such as do_lower_case."""
    model: str
    """sha256 of what else decides the scores: the configuration and the tokenizer."""
    size: int
    """Bytes of the weights."""
    run: str
    """Name of the run folder, or of the folder itself."""
    step: int | None
    """Steps of pre-training, where the folder's name tells them."""

    @property
    def short(self) -> str:
        """Twelve digits of the weights' hash: the name of the folder of its cells."""
        return self.weights[:12]


def find_subjects(path: Path, which: str, notice: Callable[[str], None]) -> list[Subject]:
    """A checkpoint folder, or checkpoints of a run folder, ready to be fine-tuned, by step.

    `which`: "last" is a run's newest; "all" every one; "log" the newest, then every next older one of at most
    1/√2 of the steps. `notice` hears of damaged checkpoints that are passed over. Raises TrainError, naming the
    folder, if weights, configuration or tokenizer are missing.
    """
    if which not in WHICH:
        raise TrainError(f"`{which}` is no choice of checkpoints, expected one of {', '.join(WHICH)}")
    if not path.is_dir():
        raise TrainError(f"{path} does not exist, {EXPECTED_MODEL}")
    run = path.resolve().name
    if not (path / "checkpoints").is_dir():
        check_model(path)
        return [_subject(path, run=_run_name(path), step=step_of(path))]
    if which == "last":
        newest = newest_checkpoint(path, notice)
        return [replace(_subject(newest, run=run, step=step_of(newest)), name=run)]
    folders = [folder for folder in sorted((path / "checkpoints").glob("step-*")) if _is_whole(folder, notice)]
    if not folders:
        raise _no_checkpoint(path)
    if which == "log":
        folders = _spaced(folders)
    return [_subject(folder, run=run, step=step_of(folder)) for folder in folders]


def find_subject(path: Path, notice: Callable[[str], None]) -> Subject:
    """The one checkpoint of find_subjects' "last"."""
    return find_subjects(path, "last", notice)[0]


def distinct(subjects: Iterable[Subject], notice: Callable[[str], None]) -> list[Subject]:
    """The subjects, of those with the same weights the first; `notice` hears of the others that lie elsewhere.

    Raises TrainError if the same weights are under two configurations or tokenizers.
    """
    found: dict[str, Subject] = {}
    for subject in subjects:
        first = found.setdefault(subject.weights, subject)
        if subject.model != first.model:
            error = f"{subject.folder} has the weights of {first.folder}, but another configuration or tokenizer"
            raise with_hint(TrainError(error), "score each in an --out of its own")
        if subject.folder.resolve() != first.folder.resolve():
            notice(f"{subject.folder} has the weights of {first.folder}: one model, scored once")
    return list(found.values())


def _subject(folder: Path, run: str, step: int | None) -> Subject:
    weights = _weight_files(folder)
    if not (folder / "config.json").is_file():
        raise TrainError(f"{folder} holds no config.json, expected a model folder")
    config = _read_object(folder / "config.json", "a model's configuration")
    refuse_quantized(folder, config)
    for file in weights:
        _check_weights(file, config)
    described = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    tokenizer = _tokenizer_sha256(folder)
    hashes = [file_sha256(file) for file in weights]
    return Subject(
        name=run if step is None else f"{run}/step-{step:08d}",
        folder=folder,
        weights=hashes[0] if len(hashes) == 1 else _sha256(*hashes),
        tokenizer=tokenizer,
        model=_sha256(json.dumps(described, sort_keys=True), tokenizer),
        size=sum(file.stat().st_size for file in weights),
        run=run,
        step=step,
    )


def _tokenizer_sha256(folder: Path) -> str:
    words = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not words:
        raise TrainError(f"{folder} holds no tokenizer, expected {' or '.join(TOKENIZER_FILES)}")
    parts = [file_sha256(file) for file in words]
    for path in (folder / name for name in TOKENIZER_SETTINGS):
        if path.is_file():
            settings = _read_object(path, "a tokenizer's settings")
            kept = {key: value for key, value in settings.items() if key not in TOKENIZER_BOOKKEEPING}
            parts.append(json.dumps({path.name: kept}, sort_keys=True))
    return _sha256(*parts)


def _read_object(path: Path, what: str) -> dict[str, Any]:
    content = read_json(path, TrainError)
    if not isinstance(content, dict):
        raise TrainError(f"{path} is not {what}")
    return content


def _check_weights(file: Path, config: dict[str, Any]) -> None:
    """Refuse a file that is cut off, NaN, and a table of words that is not the configuration's."""
    try:
        with safe_open(file, "pt") as tensors:
            names = list(tensors.keys())
            sizes = [tensors.get_slice(name).get_shape()[0] for name in names if name.endswith(WORD_EMBEDDINGS)]
            refuse_non_finite(file.parent, ((name, tensors.get_tensor(name)) for name in names))
    except SafetensorError as error:
        raise TrainError(f"{file} is damaged: {error}") from None
    wanted = config.get("vocab_size")
    for size in sizes:
        if isinstance(wanted, int) and size != wanted:
            raise TrainError(
                f"{file.parent}: the weights are of a vocabulary of {size:,} tokens, config.json of "
                f"{wanted:,}: they do not belong together"
            )


def newest_checkpoint(run: Path, notice: Callable[[str], None]) -> Path:
    """The newest whole checkpoint of a run folder; `notice` hears of damaged ones. Raises TrainError without any."""
    checkpoint = newest_valid(run, notice)
    if checkpoint is None:
        raise _no_checkpoint(run)
    return checkpoint.folder


def _no_checkpoint(run: Path) -> TrainError:
    return with_hint(
        TrainError(f"{run} holds no whole checkpoint, expected {run}/checkpoints/step-…/{WEIGHTS}"),
        "let `symbert pretrain` reach its first checkpoint",
    )


def _is_whole(folder: Path, notice: Callable[[str], None]) -> bool:
    """Whether the model is that of the checkpoint's own record; it need not be one that can be resumed."""
    try:
        for name in (STATE, WEIGHTS):
            if not (folder / name).is_file():
                raise TrainError(f"{folder / name} is missing")
        check_model(folder)
    except TrainError as error:
        notice(f"{error}: passed over")
        return False
    return True


def _spaced(folders: list[Path]) -> list[Path]:
    """The newest, then every next older one whose step is at most 1/√2 of the last chosen."""
    chosen: list[Path] = []
    for folder in reversed(folders):
        if not chosen or 2 * (step_of(folder) or 0) ** 2 <= (step_of(chosen[-1]) or 0) ** 2:
            chosen.append(folder)
    return chosen[::-1]


def _run_name(folder: Path) -> str:
    folder = folder.resolve()
    return folder.name if step_of(folder) is None else folder.parent.parent.name


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = _indexed(folder / INDEX)
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise TrainError(f"{folder / missing[0]} is missing")
        return [folder / name for name in names]
    error = TrainError(f"{folder} holds no weights, expected {WEIGHTS}")
    if hint := what_else(folder):
        with_hint(error, hint)
    if (folder / "pytorch_model.bin").is_file():
        with_hint(error, "pytorch_model.bin is a pickle: load it in transformers and save_pretrained it again")
    raise error


class _Index(Shape):
    weight_map: dict[str, NameInside]


def _indexed(path: Path) -> list[str]:
    return sorted(set(checked(_Index, read_json(path, TrainError), path, TrainError).weight_map.values()))


def _sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()
