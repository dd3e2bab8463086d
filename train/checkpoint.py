"""Checkpoints: a transformers model folder plus what resuming needs; whole or absent, checked before use.

    step-00001000/  config.json, model.safetensors, tokenizer: opens with AutoModelForMaskedLM.from_pretrained
                    optimizer.safetensors: <parameter>.exp_avg, .exp_avg_sq, .step
                    state.json: step, minutes used, sha256 of the files above, state of fp16's loss scaling

Everything random is a function of its place, so no state of a random generator is among it. Nothing is pickled.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from durable.checked import NameInside, Shape, checked, damaged, read_json
from durable.errors import with_hint
from durable.files import file_sha256, partial_name, whole_folder, write_json
from train.errors import TrainError
from train.tokenizer import add_settings

FORMAT_VERSION = 1
WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
EXPECTED_MODEL = "expected a checkpoint or run folder"


FIGURE_3_STEPS = frozenset(
    {*range(6_000, 24_001, 2_000), 30_000, 35_000, 40_000, 50_000, 75_000, 100_000, 125_000, 150_000, 200_000}
)
"""Where Courtois et al. (2024), Figure 3, fine-tune on GLUE; and 100,000, which their logs leave out."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose files are what its state.json says."""

    folder: Path
    step: int
    scaler: dict[str, Any]
    minutes: float
    """That the run had taken until then, in all its invocations."""


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    run: Path,
    step: int,
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    tokenizer: Path,
    scaler: dict[str, Any],
    minutes: float = 0.0,
) -> Path:
    """Write the checkpoint of `step` and return its folder; it appears there complete or not at all."""
    folder = checkpoint_folder(run, step)
    with whole_folder(folder, name="checkpoint") as partial:
        with _without_progress_bars():
            model.save_pretrained(partial)
        for path in tokenizer.iterdir():
            shutil.copyfile(path, partial / path.name)
        add_settings(partial)
        save_file(_moments(model, optimizer), partial / OPTIMIZER)
        files = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
        facts = {"step": step, "minutes": minutes, "scaler": scaler}
        write_json(partial / STATE, {"format_version": FORMAT_VERSION, **facts, "files": files})
    return folder


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a checkpoint into `model`; tied weights are stored once."""
    missing, unexpected = model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    if unexpected or set(missing) - tied:
        raise TrainError(
            f"{folder / WEIGHTS} holds another model's weights: "
            f"{[*(set(missing) - tied), *unexpected][0]} is in one of the two alone"
        )


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Put the stored moments into a fresh optimizer over `model`'s parameters."""
    stored = load_file(folder / OPTIMIZER)
    for name, parameter in _trained(model):
        optimizer.state[parameter] = {moment: stored[f"{name}.{moment}"].to(parameter.device) for moment in MOMENTS}


def refuse_to_begin_anew(run: Path, resumed: Checkpoint | None) -> None:
    """Raise TrainError if there are checkpoints and the run resumes from none: it would begin anew in silence."""
    folders = list((run / "checkpoints").glob("step-*"))
    if resumed is None and folders:
        raise with_hint(
            TrainError(f"{run} has {len(folders)} checkpoints, none of which can be resumed"),
            f"give another --out; or delete {run / 'checkpoints'} to begin anew",
        )


def set_aside_later(run: Path, resumed: Checkpoint, notice: Callable[[str], None]) -> None:
    """Rename the checkpoints later than that which a run resumes from, all of them damaged, to `damaged-step-…`."""
    for folder in sorted((run / "checkpoints").glob("step-*")):
        if folder.name > resumed.folder.name:
            aside = folder.with_name(f"damaged-{folder.name}")
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
            notice(f"{folder} is kept as {aside.name}")


def newest_valid(run: Path, notice: Callable[[str], None], *, with_optimizer: bool = False) -> Checkpoint | None:
    """The newest checkpoint that is whole; `notice` is told of every damaged one that is passed over."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            checkpoint = open_checkpoint(folder, with_optimizer=with_optimizer)
            if checkpoint_folder(run, checkpoint.step) != folder:
                raise TrainError(f"{folder / STATE} is damaged: it is of step {checkpoint.step}")
            return checkpoint
        except TrainError as error:
            notice(f"{error}: passed over")
    return None


def prune_checkpoints(run: Path) -> None:
    """Delete all but the newest two checkpoints; of those at the steps of Figure 3 keep what loads as a model.

    Nothing is deleted unless the newest is whole.
    """
    folders = sorted((run / "checkpoints").glob("step-*"))
    open_checkpoint(folders[-1])
    for folder in folders[:-2]:
        if int(folder.name.removeprefix("step-")) in FIGURE_3_STEPS:
            _drop_optimizer(folder)
        else:
            aside = partial_name(folder)  # which the next run sweeps away, should this one be killed here
            folder.rename(aside)
            shutil.rmtree(aside)


def _drop_optimizer(folder: Path) -> None:
    if not (folder / OPTIMIZER).exists():
        return
    state = _read_state(folder)
    files = {name: sha256 for name, sha256 in state.files.items() if name != OPTIMIZER}
    write_json(folder / STATE, {**state.model_dump(), "files": files, "weights_only": True})
    (folder / OPTIMIZER).unlink()


def open_checkpoint(folder: Path, *, with_optimizer: bool = False) -> Checkpoint:
    """Read and check a checkpoint. Raises TrainError, naming the file, if one is missing or damaged.

    The optimizer's moments are checked if they are recorded; `with_optimizer` they must be.
    """
    if not (folder / STATE).is_file():
        raise TrainError(f"{folder} is no checkpoint to resume from: {STATE} is missing")
    state = _read_state(folder)
    if state.weights_only:
        raise TrainError(f"{folder} holds weights alone, which cannot be resumed")
    if with_optimizer:
        _check_named(OPTIMIZER, state, folder / STATE)
    for name, expected in state.files.items():
        if not (folder / name).is_file():
            raise TrainError(f"{folder / name} is missing")
        _check_file(folder / name, expected)
    return Checkpoint(folder, state.step, state.scaler, state.minutes)


def check_model(folder: Path) -> None:
    """Compare a model folder with the hashes in its state.json; one without, such as a stock BERT, has none to compare.

    The optimizer's moments are left out, and files that are gone: what needs them says so. Raises TrainError, naming
    the file, if one is damaged.
    """
    if not (folder / STATE).is_file():
        return
    for name, expected in _read_state(folder).files.items():
        if name != OPTIMIZER and (folder / name).is_file():
            _check_file(folder / name, expected)


def model_folder(path: Path, notice: Callable[[str], None]) -> Path:
    """The checked model folder `path`, or the newest valid checkpoint of the run folder `path`.

    `notice` is told of damaged checkpoints that are passed over. Raises TrainError if there is no such folder, a file
    of the model is damaged, or a run has no valid checkpoint.
    """
    if not path.is_dir():
        raise TrainError(f"{path} {'is a file' if path.exists() else 'does not exist'}, {EXPECTED_MODEL}")
    if not (path / "checkpoints").is_dir():
        check_model(path)
        return path
    newest = newest_valid(path, notice)
    if newest is None:
        error = TrainError(f"{path} holds no valid checkpoint, expected {path}/checkpoints/step-…")
        raise with_hint(error, "let `symbert pretrain` reach its first checkpoint")
    return newest.folder


def step_of(folder: Path) -> int | None:
    """The step that a checkpoint's folder is named by; None if it lies in no run."""
    digits = folder.resolve().name.removeprefix("step-")
    return int(digits) if digits.isdecimal() and folder.resolve().parent.name == "checkpoints" else None


class _State(Shape):
    """What state.json says."""

    format_version: int
    step: int = Field(ge=0)
    minutes: float = Field(0.0, ge=0)
    scaler: dict[str, int | float]
    files: dict[NameInside, str]
    weights_only: bool = False


def _read_state(folder: Path) -> _State:
    """Raises TrainError, naming the field, if state.json is not what `save_checkpoint` wrote."""
    path = folder / STATE
    document = read_json(path, TrainError)
    version = document.get("format_version", FORMAT_VERSION) if isinstance(document, dict) else FORMAT_VERSION
    if version != FORMAT_VERSION:
        raise TrainError(f"{path} has format version {version}, expected {FORMAT_VERSION}")
    state = checked(_State, document, path, TrainError)
    _check_named(WEIGHTS, state, path)
    return state


def _check_named(name: str, state: _State, path: Path) -> None:
    if name not in state.files:
        raise damaged(path, f"`files` does not name {name}, expected the sha256 of each file", TrainError)


def _check_file(path: Path, expected: str) -> None:
    if file_sha256(path) != expected:
        raise TrainError(f"{path} is damaged: its sha256 is not the recorded one")


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep transformers' bar over the one file that it writes off the user's screen."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in _trained(model)
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
