"""A corpus made in slices, by a command each: opened once, its units made anywhere at any time, finished once.

Slices hold the folder together; opening and finishing hold it alone. A budget counts documents in file order, which
slices do not have, so it is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from durable.errors import UnfinishedError, few, with_hint, with_others
from durable.files import sweep_partials
from durable.locks import folder_lock
from durable.progress import unheard
from durable.slices import Slice
from oscar_prep.errors import PrepareError
from oscar_prep.manifest import cut_too_short
from oscar_prep.plan import INDEX, MANIFEST, STATE, TOKENIZER, Plan
from oscar_prep.prepare import Corpus, Running, check_folder, finish_corpus, listing_of, opened, save_tokenizer
from oscar_prep.record import Budget, Unit, UnitRecord
from oscar_prep.tokenizer import files_of
from oscar_prep.worker import Task

AGAIN = "symbert slurm prepare, with the same arguments, prints what makes them"


def open_slices(plan: Plan, count: int, notice: Callable[[str], None] = unheard) -> list[int]:
    """Put into the folder what slices need, and list the units; returns the slices in which units are missing.

    Nothing is done to a corpus that is finished, but for a tokenizer that is not its own any more: it is put back, and
    `notice` hears of it.
    Raises PrepareError as prepare does, and for a budget; DurableError if another run holds the folder.
    """
    _check(plan)
    with folder_lock(plan.out):
        check_folder(plan)
        sweep_partials(plan.out)
        corpus = Corpus(opened(plan, notice), Running())
        units = corpus.largest_first()
        missing = [number for number in range(count) if _missing(corpus, Slice(number, count).of(units))]
        if missing or not (plan.out / MANIFEST).is_file():
            corpus.list_units("slurm")
    return missing


def prepare_slice(plan: Plan, running: Running, slice_: Slice) -> list[str] | None:
    """Make what is missing of a slice; returns the files that were lost, or None if a stop request ended it early.

    Raises PrepareError if a file is damaged, when the others are done, or if the folder was not opened.
    """
    _check(plan)
    if not (plan.out / STATE).is_file():
        raise with_hint(PrepareError(f"{plan.out} is not there, or not begun"), AGAIN)
    with folder_lock(plan.out, shared=True):
        index = plan.out / INDEX
        sources = replace(plan.sources, blocklists=index) if index.is_file() else plan.sources
        if files_of(plan.out / TOKENIZER) != plan.tokenizer.files:
            raise with_hint(PrepareError(f"{plan.out / TOKENIZER} is not the tokenizer of this corpus any more"), AGAIN)
        tokenizer = replace(plan.tokenizer, folder=plan.out / TOKENIZER)
        corpus = Corpus(replace(plan, tokenizer=tokenizer, sources=sources), running)
        corpus.board.join(slice_.name)
        units = _missing(corpus, slice_.of(corpus.largest_first()))
        if not corpus.run([Task(unit, Budget(), corpus.earlier(unit)) for unit in units]):
            return None
        return [unit.file.name for unit in units if unit.index not in corpus.records]


def finish_slices(plan: Plan, running: Running) -> dict[str, Any]:
    """Write the manifest of what slices have made; the inputs are not read again. Returns the manifest.

    Raises UnfinishedError if files are missing; PrepareError as prepare does.
    """
    _check(plan)
    if not (plan.out / STATE).is_file():
        raise with_hint(PrepareError(f"{plan.out} is not there, or not begun"), AGAIN)
    with folder_lock(plan.out):
        sweep_partials(plan.out)
        records = _gathered(plan, Corpus(plan, running))
        _reopen_cut_too_short(plan, records)
        save_tokenizer(plan, running.notice)
        return finish_corpus(plan, records, running)


def _check(plan: Plan) -> None:
    if plan.target is not None:
        raise with_hint(
            PrepareError(f"{plan.target} is a URL, expected a folder that all nodes of the cluster see"),
            "make the corpus there, then copy it; or run `symbert prepare` on one machine",
        )
    plan.sources.check(plan.configuration)
    check_folder(plan)
    if plan.configuration.max_documents is not None or plan.configuration.max_tokens is not None:
        raise with_hint(
            PrepareError("--max-documents and --max-tokens count in file order, which slices do not have"),
            "give the budget to `symbert prepare` on one machine or --engine ray",
        )


def _missing(corpus: Corpus, units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if corpus.standing(unit) is None]


def _reopen_cut_too_short(plan: Plan, records: Sequence[UnitRecord | Unit]) -> None:
    units = plan.units()
    short = [units[place] for place in cut_too_short(records, plan.configuration.validation_samples)]
    for unit in short:
        (plan.out / unit.names["record"]).unlink()
    if short:
        raise with_hint(
            UnfinishedError(
                f"{len(short):,} files are to be made again for their validation samples: "
                f"{few(unit.file.name for unit in short)}"
            ),
            AGAIN,
        )


def _gathered(plan: Plan, corpus: Corpus) -> Sequence[UnitRecord | Unit]:
    """What slices have made of every unit, a Unit where it kills its workers."""
    failures = corpus.board.failures()
    records = [corpus.standing(unit) or unit for unit in corpus.units]
    missing = [unit for unit in records if isinstance(unit, Unit)]
    reasons = [
        failures[unit.stem].reason for unit in missing if unit.stem in failures and not failures[unit.stem].deaths
    ]
    if reasons:
        raise with_others(PrepareError(reasons[0]), reasons[1:], listing_of(plan))
    left = [unit.file.name for unit in missing if unit.stem not in failures]
    if left:
        raise with_hint(
            UnfinishedError(f"{len(left):,} of {len(records):,} files are not made yet: {few(left)}"), AGAIN
        )
    return records
