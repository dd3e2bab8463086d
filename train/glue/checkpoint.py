"""The checkpoints under test: found, identified by their weights, and given a fresh classification head."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import symbert  # noqa: F401 - tells transformers' Auto classes of its models
from durable.errors import with_hint
from durable.files import file_sha256
from train.checkpoint import EXPECTED_MODEL, STATE, WEIGHTS, check_model, newest_valid, step_of
from train.errors import TrainError

WORD_EMBEDDINGS = "word_embeddings.weight"
INDEX = "model.safetensors.index.json"
WHICH = ("last", "all", "log")
"""Which checkpoints of a run are meant."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
# Keys of config.json that say who wrote it, not what the model computes.
BOOKKEEPING = frozenset({"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"})


@dataclass(frozen=True)
class Subject:
    """A checkpoint whose GLUE scores are wanted."""

    name: str
    folder: Path
    weights: str
    """sha256 of the weights' file; of several files, of their hashes in name order."""
    tokenizer: str
    """sha256 of the tokenizer's file."""
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


def distinct(subjects: Iterable[Subject]) -> list[Subject]:
    """The subjects, of those with the same weights the first."""
    first: dict[str, Subject] = {}
    for subject in subjects:
        first.setdefault(subject.weights, subject)
    return list(first.values())


def _subject(folder: Path, run: str, step: int | None) -> Subject:
    weights = _weight_files(folder)
    if not (folder / "config.json").is_file():
        raise TrainError(f"{folder} holds no config.json, expected a model folder")
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not tokenizer:
        raise TrainError(f"{folder} holds no tokenizer, expected {' or '.join(TOKENIZER_FILES)}")
    config = _read_config(folder)
    for file in weights:
        _check_weights(file, config)
    described = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    vocabulary = file_sha256(tokenizer[0])
    hashes = [file_sha256(file) for file in weights]
    return Subject(
        name=run if step is None else f"{run}/step-{step:08d}",
        folder=folder,
        weights=hashes[0] if len(hashes) == 1 else _sha256(*hashes),
        tokenizer=vocabulary,
        model=_sha256(json.dumps(described, sort_keys=True), vocabulary),
        size=sum(file.stat().st_size for file in weights),
        run=run,
        step=step,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise TrainError(f"{folder / 'config.json'} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise TrainError(f"{folder / 'config.json'} is not a model's configuration")
    return config


def _check_weights(file: Path, config: dict[str, Any]) -> None:
    """Refuse a file that is cut off, and a table of words that is not the configuration's."""
    try:
        with safe_open(file, "pt") as tensors:
            tables = [name for name in tensors.keys() if name.endswith(WORD_EMBEDDINGS)]  # noqa: SIM118 - no mapping
            sizes = [tensors.get_slice(name).get_shape()[0] for name in tables]
    except SafetensorError as error:
        raise TrainError(f"{file} is damaged: {error}") from None
    for size in sizes:
        if size != config.get("vocab_size", size):
            raise TrainError(
                f"{file.parent}: the weights are of a vocabulary of {size:,} tokens, config.json of "
                f"{config['vocab_size']:,}: they do not belong together"
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
    if (folder / "pytorch_model.bin").is_file():
        with_hint(error, "pytorch_model.bin is a pickle: load it in transformers and save_pretrained it again")
    raise error


def _indexed(path: Path) -> list[str]:
    try:
        return sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{path} is damaged: {error!r}") from None


def _sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def load_tokenizer(subject: Subject) -> Any:
    """The checkpoint's own tokenizer. Raises TrainError if it is damaged or knows more tokens than the model."""
    config = load_config(subject)
    try:
        tokenizer = AutoTokenizer.from_pretrained(subject.folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{subject.folder}: its tokenizer is damaged: {_first_line(error)}") from None
    if len(tokenizer) > config.vocab_size:
        raise TrainError(
            f"{subject.folder}: the tokenizer has {len(tokenizer):,} tokens, the model {config.vocab_size:,}: "
            "they do not belong together"
        )
    if tokenizer.pad_token_id is None:
        raise TrainError(f"{subject.folder}: the tokenizer has no padding token")
    return tokenizer


def load_config(subject: Subject) -> Any:
    """The checkpoint's configuration. Raises TrainError, naming the file, if it is that of no model known here."""
    try:
        return AutoConfig.from_pretrained(subject.folder, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        refusal = TrainError(f"{subject.folder / 'config.json'}: {_first_line(error)}")
        for hint in getattr(error, "__notes__", []):
            with_hint(refusal, hint)
        raise refusal from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and not isinstance(error, KeyError) else repr(error)


def has_token_types(subject: Subject) -> bool:
    """Whether the model tells the first sentence from the second by token types."""
    return (getattr(load_config(subject), "type_vocab_size", 0) or 0) > 1


def usable_length(config: Any, max_length: int) -> int:
    """`max_length`, or as many positions as the model has."""
    return min(max_length, getattr(config, "max_position_embeddings", max_length))


def load_classifier(subject: Subject, num_labels: int, seed: int) -> Any:
    """The checkpoint under a new classification head; raises as load_with_head does."""
    return load_with_head(subject, AutoModelForSequenceClassification, seed, num_labels=num_labels)


def load_with_head(subject: Subject, kind: Any, seed: int, **settings: Any) -> Any:
    """The checkpoint as one of transformers' Auto classes, under a new head, in float32 on the CPU.

    The head is drawn from (seed, parameter name) alone: neither torch's global generator nor the kind of encoder
    has a say. A pooler is kept where the checkpoint has one. Raises TrainError if the weights do not fit the
    configuration.
    """
    try:
        with _silent_loading():
            model, report = kind.from_pretrained(
                subject.folder,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                **settings,
            )
    except SafetensorError as error:
        raise TrainError(f"{subject.folder / WEIGHTS} is damaged: {error}") from None
    prefix = f"{model.base_model_prefix}."
    misfits = {name: (found, wanted) for name, found, wanted in report["mismatched_keys"]}
    for name in sorted({*report["missing_keys"], *misfits}):
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler."):
            found = f"has shape {tuple(misfits[name][0])}" if name in misfits else "is missing"
            raise TrainError(f"{subject.folder}: the weight {name} {found}, which config.json does not fit")
    _draw_head(model, {*report["missing_keys"], *misfits}, seed)
    return model


def _draw_head(model: Any, missing: set[str], seed: int) -> None:
    prefix = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        if name.startswith(prefix) and name not in missing:
            continue
        with torch.no_grad():
            if parameter.dim() < 2:
                parameter.zero_()
                continue
            digest = hashlib.blake2b(f"{seed} {name.removeprefix(prefix)}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
            parameter.normal_(0.0, model.config.initializer_range, generator=generator)


@contextlib.contextmanager
def _silent_loading() -> Iterator[None]:
    """No report of the weights that are new, which is what fine-tuning is about, and no bar for a second's work."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
