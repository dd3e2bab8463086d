"""Pre-training: a run folder from a corpus and a recipe, that the same call resumes wherever it was stopped.

RUN/recipe.toml, environment.json, metrics.jsonl, checkpoints/step-00001000/
"""

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from durable.errors import with_hint
from durable.files import file_sha256, sweep_partials, write_json, write_text
from durable.locks import LOCK_NAME, folder_lock
from durable.progress import ProgressCallback, silent, unheard
from durable.settings import difference, dump_toml
from durable.signals import StopRequest
from symbert import SymbertConfig, SymbertForMaskedLM
from symbert.from_bert import load_bert, start_from_bert
from train.checkpoint import (
    WEIGHTS,
    Checkpoint,
    checkpoint_folder,
    newest_valid,
    open_checkpoint,
    refuse_to_begin_anew,
    set_aside_later,
)
from train.compiled import drop_cut_libraries
from train.corpus import Corpus, check_fit, open_corpus
from train.cpu import keep_freed_memory
from train.data import FIRST_WEIGHTS, key
from train.device import current, deterministic_kernels, find_device, is_compiled, with_precision
from train.environment import ENVIRONMENT, assumptions, identity, invocation, read_environment
from train.errors import TrainError
from train.loop import Trainer
from train.memory import with_micro_batch
from train.metrics import MetricsLog, refuse_gaps
from train.positions import trained_positions, untrained_positions
from train.preflight import Preflight, preflight
from train.ranks import Ranks, joined, refuse_one_gpu
from train.recipe import Recipe, symbert_config
from train.run import Notice, Outcome, Run, Stop
from train.tokenizer import settings_to_add
from train.track import TRACKERS, Track

# How torch says that there is no such memory, and that there could be none.
TOO_LARGE = ("can't allocate memory", "Storage size calculation overflowed")
RECIPE = "recipe.toml"


def pretrain(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str | None = None,
    init_from: Path | None = None,
    stop: Stop = Stop(),  # noqa: B008  frozen
    track: Track | None = None,
    progress: ProgressCallback = silent,
    notice: Notice = print,
) -> Outcome:
    """Train a model on the corpus `data` in the run folder `out`, or go on where that run stopped.

    A new run starts from the weights of `init_from`, a stock BERT folder or a checkpoint that folds into one, as far
    as they have a counterpart. Signals (SIGTERM, SIGUSR1, Ctrl-C) and `stop` save a checkpoint at the next step
    boundary; the outcome says so. `track` mirrors metrics.jsonl for another program. Under torchrun or srun every rank
    makes this call. `progress` counts steps; `notice` is told one line about anything unusual. Raises TrainError for a
    corpus, device or run folder that does not fit, and UnfinishedError if a signal comes while the corpus is checked;
    nothing has been written to `out` then.
    """
    corpus, given, found = _checked(data, recipe, device)
    _refuse_other_folders(out)
    mirror = None if track is None else TRACKERS[track](out)
    start = None if init_from is None else file_sha256(_weights(init_from))
    with ExitStack() as stack:
        stack.enter_context(current(found))
        if given.runtime.deterministic:
            stack.enter_context(deterministic_kernels())
        ranks = stack.enter_context(joined(found))
        _refuse_more_ranks(ranks.count, given)
        request = stack.enter_context(StopRequest())
        with ranks.together(found):  # where the first rank may read for long, and the others wait for it
            model = first_model(given)
            if not any(out.glob("checkpoints/step-*")):  # a new run: refused, if at all, before its folder is made
                if ranks.first:
                    corpus.check_hashes(request)
                if init_from is not None:
                    _start_from(model, init_from, notice if ranks.first else unheard)
            if ranks.first:
                stack.enter_context(folder_lock(out))
                _refuse_other_settings(out, identity(given, corpus, start))
                sweep_partials(out)
            newest = _newest(out, notice) if ranks.first else None
            model.config.trained_positions = trained_positions(given, init_from)
            _say_untrained(model.config, notice if ranks.first else unheard)
        checkpoint = _found_by_all(newest, out, ranks, found)
        recipe = with_micro_batch(given, found, out, ranks)
        costs = preflight(corpus, recipe, found)
        if found.type == "cpu":
            keep_freed_memory()
        if is_compiled(recipe, found):
            drop_cut_libraries(notice)  # every rank, for each machine has a cache of its own
        trainer = Trainer(model, recipe, found, ranks)
        stack.callback(trainer.release)
        run = Run(out, corpus, trainer, costs, checkpoint)
        run.fit_into_memory(given.runtime.micro_batch_size is None, notice if ranks.first else unheard)
        if not ranks.first:
            return run.train(None, request, stop, silent)
        record = {"identity": identity(given, corpus, start), "assumptions": assumptions(given)}
        write_text(out / RECIPE, dump_toml(given))
        _record(out, corpus, record, run, invocation(run.recipe, found, run.step, ranks.count))
        metrics = stack.enter_context(MetricsLog(out, None if checkpoint is None else run.step, mirror))
        outcome = run.train(metrics, request, stop, progress)
        _record_end(out, outcome, run.minutes_before)
        return outcome


def dry_run(
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    device: str | None = None,
    init_from: Path | None = None,
    notice: Notice = print,
) -> Preflight:
    """What `pretrain` would cost, or what is left of it; refuses what `pretrain` would refuse, and writes nothing."""
    corpus, recipe, found = _checked(data, recipe, device)
    checkpoint = _would_resume(corpus, out, recipe, init_from, notice)
    recipe = with_micro_batch(recipe, found, out)
    if checkpoint is None:
        corpus.check_hashes()
    config = symbert_config(recipe.model)
    config.trained_positions = trained_positions(recipe, init_from)
    _say_untrained(config, notice)
    return preflight(corpus, recipe, found, steps_done=checkpoint.step if checkpoint else 0)


def is_left(
    data: Path, out: Path, recipe: Recipe, *, ranks: int, init_from: Path | None = None, notice: Notice = print
) -> bool:
    """Whether `pretrain` with so many ranks has anything left to do; refuses what it would refuse on any device.

    For a machine that is not the run's own: it looks for no device, leaves the samples unread, and writes nothing.
    """
    corpus = _opened(data, recipe)
    _refuse_more_ranks(ranks, recipe)
    checkpoint = _would_resume(corpus, out, recipe, init_from, notice)
    if checkpoint is None or not read_environment(out / ENVIRONMENT).get("finished"):
        return True
    budget = recipe.schedule.max_minutes
    return checkpoint.step < recipe.schedule.max_steps and (budget is None or checkpoint.minutes < budget)


def first_model(recipe: Recipe) -> Any:
    """The untrained model; its weights depend on training.seed and [model] alone, not on the device.

    Raises TrainError if the machine has not the memory for it.
    """
    torch.manual_seed(key(FIRST_WEIGHTS, recipe.training.seed) >> 1)
    try:
        return SymbertForMaskedLM(symbert_config(recipe.model))
    except RuntimeError as error:
        if not any(sign in str(error) for sign in TOO_LARGE):
            raise
        raise TrainError(
            "the machine has not the memory for a model of these sizes: see [model] of the recipe"
        ) from None


def _checked(data: Path, recipe: Recipe, device: str | None) -> tuple[Corpus, Recipe, torch.device]:
    refuse_one_gpu(device)
    found = find_device(device)
    recipe = with_precision(recipe, found)
    return _opened(data, recipe), recipe, found


def _opened(data: Path, recipe: Recipe) -> Corpus:
    corpus = open_corpus(data)
    check_fit(corpus, recipe)
    settings_to_add(corpus.tokenizer)  # refused, if at all, before the first checkpoint gets its copy
    return corpus


def _would_resume(
    corpus: Corpus, out: Path, recipe: Recipe, init_from: Path | None, notice: Notice
) -> Checkpoint | None:
    """The checkpoint that a run would go on from, None for a new one; refuses what it would, and writes nothing."""
    _refuse_other_folders(out)
    start = None if init_from is None else file_sha256(_weights(init_from))
    _refuse_other_settings(out, identity(recipe, corpus, start))
    checkpoint = _resumed(out, notice)
    if checkpoint is None and init_from is not None:
        _start_from(first_model(recipe), init_from, notice)
    return checkpoint


def _newest(out: Path, notice: Notice) -> Checkpoint | None:
    found = _resumed(out, notice)
    if found is not None:
        set_aside_later(out, found, notice)
    return found


def _resumed(out: Path, notice: Notice) -> Checkpoint | None:
    """The checkpoint that the run goes on from; None for a new run."""
    found = newest_valid(out, notice, with_optimizer=True)
    refuse_to_begin_anew(out, found)
    if found is not None:
        refuse_gaps(out, found.step)
    return found


def _found_by_all(found: Checkpoint | None, out: Path, ranks: Ranks, device: torch.device) -> Checkpoint | None:
    """The newest valid checkpoint, which the first rank has found: all must begin with the same one."""
    step = int(ranks.total(torch.tensor(found.step if found else 0), device))
    return found if ranks.first or not step else open_checkpoint(checkpoint_folder(out, step))


def _record(out: Path, corpus: Corpus, record: dict[str, Any], run: Run, entry: dict[str, Any]) -> None:
    path = out / ENVIRONMENT
    earlier = read_environment(path)["invocations"] if path.exists() else []
    document = {
        **record,
        "data": str(corpus.folder),
        "data_manifest_sha256": corpus.manifest_hash,
        "parameters": run.costs.parameters,
        "flops_per_token": run.costs.flops_per_token,
        "unigram_entropy": run.costs.unigram_entropy,
        "invocations": [*earlier, {**entry, "matrix_flops_per_second": run.costs.matrix_flops_per_second}],
    }
    write_json(path, document)


def _record_end(out: Path, outcome: Outcome, minutes_before: float) -> None:
    """Write how far this invocation has come; one that was killed leaves nothing of this."""
    document = read_environment(out / ENVIRONMENT)
    document["invocations"][-1] |= {
        "to_step": outcome.step,
        "minutes": outcome.minutes - minutes_before,
        "tokens_per_second": outcome.tokens_per_second,
        "model_flops_utilisation": outcome.model_flops_utilisation,
    }
    write_json(out / ENVIRONMENT, document | {"minutes": outcome.minutes, "finished": outcome.finished})


def _weights(folder: Path) -> Path:
    if not (folder / WEIGHTS).is_file():
        raise TrainError(f"--init-from {folder} holds no {WEIGHTS}, expected a BERT or a checkpoint to start from")
    return folder / WEIGHTS


def _start_from(model: Any, folder: Path, notice: Notice) -> None:
    for start in start_from_bert(model, load_bert(folder)):
        how = "stays random" if start.error is None else f"starts from {folder}, relative error {start.error:.3g}"
        notice(f"layer {start.layer}, {start.operator}: {how}")


def _say_untrained(config: SymbertConfig, notice: Notice) -> None:
    if untrained := untrained_positions(config.to_dict()):
        notice(f"{untrained}; model.max_position_embeddings says how many there are")


def _refuse_more_ranks(count: int, recipe: Recipe) -> None:
    if count > recipe.training.batch_size:
        raise TrainError(f"{count} ranks cannot share a batch of {recipe.training.batch_size} samples")


def _refuse_other_folders(out: Path) -> None:
    there = next((path for path in (out, *out.parents) if path.exists()), out)
    if there.exists() and not there.is_dir():
        raise TrainError(f"{there} is a file, expected a folder {'for' if there == out else 'to hold'} the run")
    strangers = [path.name for path in out.glob("*") if path.name not in {RECIPE, LOCK_NAME} and path.name[0] != "."]
    if strangers and not (out / ENVIRONMENT).exists():
        raise with_hint(TrainError(f"{out} holds other things ({strangers[0]}), and no run"), "give another --out")


def _refuse_other_settings(out: Path, wanted: dict[str, Any]) -> None:
    path = out / ENVIRONMENT
    if not path.exists():
        return
    differences = difference(read_environment(path)["identity"], wanted)
    if wanted["recipe"]["training"]["precision"] == "auto":  # the device is not known, and may bring it to agree
        differences = [line for line in differences if not line.startswith("recipe.training.precision: ")]
    if differences:
        lines = "\n".join(f"  {line.removeprefix('recipe.')}" for line in differences)
        raise with_hint(
            TrainError(f"{out} holds a run with other settings:\n{lines}"),
            f"give another --out; or --recipe {shlex.quote(str(out / RECIPE))} goes on with the run's own settings",
        )
