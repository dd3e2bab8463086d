"""A whole corpus: every input file made a unit by the workers of an engine, then split, budgets, manifest.

Running the same command again continues where the last run ended: a unit is not made again if its input and its files
have the hashes of its record. If its input has changed the run is refused. The manifest is written last, so a folder
without one is not a corpus. A run may be divided: the units of each slice are made by a command of its own, and one
more writes the manifest.
"""

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blocklists.errors import BlocklistError
from durable.board import Board, Entry, Facts
from durable.engines import LOCAL, Engine
from durable.errors import DurableError, with_hint, with_others
from durable.files import PARTIAL, sweep_partials, write_json
from durable.locks import LOCK_NAME, folder_lock
from durable.progress import ProgressCallback, silent, unheard
from durable.signals import StopRequest
from durable.tasks import Outcome, Posting, Watch
from oscar_prep.damage import input_size
from oscar_prep.errors import PrepareError
from oscar_prep.manifest import cut_too_short, finish
from oscar_prep.plan import INDEX, STATE, TOKENIZER, Plan, changes_since
from oscar_prep.record import DIFFERS, Budget, Unit, UnitRecord
from oscar_prep.shards import SPLITS, size_problem
from oscar_prep.tokenizer import files_of
from oscar_prep.upload import Upload
from oscar_prep.worker import Made, Task, facts_of, key_of, needs_of, start_worker

MAX_BAD_SHARE = 0.001
PARTS = (*SPLITS, "documents", "quarantine", "units", TOKENIZER)
REFUSALS = (PrepareError, BlocklistError, DurableError)


@dataclass(frozen=True)
class Running:
    """What changes nothing about the corpus: how it is made, and who is told."""

    workers: int | None = 1
    """Units at a time; None is as many as the engine has room for."""
    max_bad_share: float = MAX_BAD_SHARE
    progress: ProgressCallback = silent
    stop: StopRequest | None = None
    engine: Engine = LOCAL
    ship_files: bool = False
    """Send the index, KenLM and language models to the machines of a Ray cluster, which otherwise see them."""
    notice: Callable[[str], None] = unheard
    """Hears of units that are begun again since their worker was lost, or made anew since they were damaged, and of a
    tokenizer that is put back; by default nobody does."""


def prepare(plan: Plan, running: Running) -> dict[str, Any] | None:
    """Make the corpus, or continue to; returns its manifest, or None if a stop request ended the run early.

    Raises PrepareError if the folder holds something else or a corpus of other settings, if an input is damaged or
    has changed, if too many lines are broken, or if nothing was kept; DurableError if another run holds the folder.
    """
    plan.sources.check(plan.configuration)
    check_folder(plan)
    upload = None if plan.target is None else Upload(plan.out, plan.target)
    with folder_lock(plan.out):
        check_folder(plan)
        sweep_partials(plan.out)
        plan = opened(plan, running.notice)
        corpus = Corpus(plan, running)
        corpus.list_units(running.engine.name)
        claimed = False
        try:
            if upload:
                claimed = upload.begin(plan.identity)
            records = corpus.make()
            if records is None:
                return None
            manifest = finish_corpus(plan, records, running)
            if upload:
                upload.finish(manifest, corpus.units, records)
            return manifest
        except REFUSALS:
            if not _holds_a_sample(plan):
                _discard(plan.out)
                if upload and claimed:
                    upload.discard(corpus.units)
            raise
        finally:
            sweep_partials(plan.out)  # what workers that were killed have left


def opened(plan: Plan, notice: Callable[[str], None] = unheard) -> Plan:
    """Put into the folder what workers take from there; returns the plan that takes it from there."""
    if not (plan.out / STATE).is_file():
        write_json(plan.out / STATE, plan.identity, name="state")
    if (plan.out / DIFFERS).is_file():
        notice("tokenizers computes this corpus, slowly, for nanotoken once gave it a wrong id")
    save_tokenizer(plan, notice)
    sources = plan.sources.compiled(plan.out / INDEX, plan.configuration)
    return replace(plan, tokenizer=replace(plan.tokenizer, folder=plan.out / TOKENIZER), sources=sources)


def save_tokenizer(plan: Plan, notice: Callable[[str], None] = unheard) -> None:
    """Put the tokenizer into the folder, unless it is there; `notice` hears if what was there is not it."""
    folder = plan.out / TOKENIZER
    found = files_of(folder)
    if found == plan.tokenizer.files:
        return
    if found:
        notice(f"{folder} was not the tokenizer of this corpus any more: it is written again")
    elif plan.tokenizer.mended:
        settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in plan.tokenizer.mended.items())
        notice(f"{folder} is saved with {settings}, as its tokenizer.json has it: AutoTokenizer would take another")
    plan.tokenizer.save(folder)


def finish_corpus(plan: Plan, records: Sequence[UnitRecord | Unit], running: Running) -> dict[str, Any]:
    """Write the manifest; returns it. The board stays where it names units that were lost."""
    manifest = finish(plan, records, running.max_bad_share)
    if not manifest["lost"]:
        Board(plan.out).end()
    return manifest


class Corpus:
    """The units of one run and the order of their making."""

    def __init__(self, plan: Plan, running: Running) -> None:
        self._plan = plan
        self._running = running
        self.units = plan.units()
        self._sizes = [input_size(unit.file.path) for unit in self.units]
        self._size = sum(self._sizes)
        self.records: dict[int, UnitRecord] = {}
        self._errors: list[Exception] = []
        self._last_seen: dict[int, Facts] = {}
        self._totals: Counter[str] = Counter()
        self.board = Board(plan.out)

    def list_units(self, engine: str) -> None:
        """Begin a new board."""
        entries = {
            unit.stem: Entry(unit.file.name, self._sizes[unit.index], unit.names["record"]) for unit in self.units
        }
        self.board.begin("prepare", engine, "B", entries)

    def make(self) -> list[UnitRecord | Unit] | None:
        """Every unit's record in file order up to the budget, a Unit where it was lost; None if stopped early."""
        outcomes = self._make()
        while outcomes is not None:
            short = cut_too_short(outcomes, self._plan.configuration.validation_samples)
            if not short:
                break
            if not self.run([Task(self.units[place], self._budget_of(place), None) for place in short]):
                return None
            outcomes = [self.records.get(place, self.units[place]) for place in range(len(outcomes))]
        return outcomes

    def _budget_of(self, place: int) -> Budget:
        """What a unit was given, whose record is forgotten with that."""
        return self.records.pop(place).budget or Budget()

    def _make(self) -> list[UnitRecord | Unit] | None:
        configuration = self._plan.configuration
        bounded = configuration.max_documents is not None or configuration.max_tokens is not None
        if bounded:
            return self._make_bounded(Budget(configuration.max_documents, configuration.max_tokens))
        if not self.run([Task(unit, Budget(), self.earlier(unit)) for unit in self.largest_first()]):
            return None
        return [self.records.get(unit.index, unit) for unit in self.units]

    def largest_first(self) -> list[Unit]:
        """The units in the order in which they are made."""
        return sorted(self.units, key=lambda unit: (-self._sizes[unit.index], unit.index))

    def _make_bounded(self, budget: Budget) -> list[UnitRecord | Unit] | None:
        """In file order; the unit that crosses the budget is written again, cut, unless it was so already."""
        before = self._made_before(budget)
        if (before and not self.run(before)) or not self.run(self._until_reached(budget)):
            return None
        kept: list[UnitRecord | Unit] = []
        for unit in self.units:
            record = self.records.get(unit.index)
            if record is None:
                kept.append(unit)
                continue
            crosses = budget.reached(record.ledger.kept, record.ledger.tokens)
            if record.budget != (budget if crosses else None):
                if not self.run([Task(unit, budget, None)]):
                    return None
                record = self.records[unit.index]
            kept.append(record)
            if crosses:
                break
            budget = budget.less(record.ledger.kept, record.ledger.tokens)
        return kept

    def _made_before(self, budget: Budget) -> list[Task]:
        """The first units, as far as an earlier run has recorded them: what is left for each is known beforehand.

        Given more, the unit that crosses the budget would be written anew, uncut, over what stands.
        """
        tasks = []
        for unit in self.units:
            record = self.earlier(unit)
            if record is None:
                break
            tasks.append(Task(unit, budget, record))
            if budget.reached(record.ledger.kept, record.ledger.tokens):
                break
            budget = budget.less(record.ledger.kept, record.ledger.tokens)
        return tasks

    def _until_reached(self, budget: Budget) -> Iterator[Task]:
        """Tasks in file order, as long as what is known to come before leaves some of the budget."""
        left = budget
        unknown: list[int] = []
        for unit in self.units:
            for index in [index for index in unknown if index in self.records]:
                ledger = self.records[index].ledger
                if left.reached(ledger.kept, ledger.tokens):
                    return
                left = left.less(ledger.kept, ledger.tokens)
                unknown.remove(index)
            if unit.index not in self.records:
                yield Task(unit, budget if unknown else left, self.earlier(unit))
            unknown.append(unit.index)

    def earlier(self, unit: Unit) -> UnitRecord | None:
        """The record that an earlier run left of a unit, whatever has become of its files."""
        path = self._plan.out / unit.names["record"]
        return UnitRecord.read(path) if path.is_file() else None

    def standing(self, unit: Unit) -> UnitRecord | None:
        """The record of an earlier run, if its ids are not in doubt and its files are there in full size."""
        record = self.earlier(unit)
        if record is None or record.is_doubtful(self._plan.out):
            return None
        if any(size_problem(self._plan.out, file) for file in record.files()):
            return None
        return record

    def run(self, tasks: Iterable[Task]) -> bool:
        """Run tasks; false if a stop request ended them early. Raises the first error when all the rest is done."""
        running, plan = self._running, self._plan
        watch = Watch(self._hear, running.stop, Posting(self.board, key_of), self._lose)
        executor = running.engine.executor(
            start_worker, replace(plan, files=()), running.workers, watch, needs_of(plan, running.ship_files)
        )  # each worker is sent its files one by one: no list of all
        for outcome in executor.run(tasks):
            self._take(outcome)
        if watch.stopped:
            return False
        if self._errors:
            kept = _holds_a_sample(plan)  # of a folder without a sample nothing is left, no list of failures either
            raise with_others(self._errors[0], self._errors[1:], listing_of(plan) if kept else "")
        return True

    def _take(self, outcome: Outcome[Task, Made]) -> None:
        unit = outcome.argument.unit
        if outcome.result is not None:
            made = outcome.result
            self.records[unit.index] = made.record
            if made.damage:
                self._running.notice(f"{unit.file.name} was made anew: {made.damage}")
            self._hear(outcome.argument, facts_of(self._sizes[unit.index], made.record.ledger))
        elif isinstance(outcome.error, REFUSALS):
            self._errors.append(outcome.error)
        elif outcome.error is not None:
            raise outcome.error

    def _lose(self, task: Task, what: str) -> None:
        self._running.notice(f"{task.unit.file.name} is begun again: {what}")

    def _hear(self, task: Task, facts: Facts) -> None:
        self._totals.update(facts)
        self._totals.subtract(self._last_seen.get(task.unit.index, {}))
        self._last_seen[task.unit.index] = facts
        seen = self._totals["documents"]
        share = self._totals["kept"] / seen if seen else 0.0
        self._running.progress(self._totals["done"], self._size, {"documents": f"{seen:,}", "kept": f"{share:.1%}"})


def listing_of(plan: Plan) -> str:
    """Where all files are listed that could not be read."""
    return f"`symbert status {shlex.quote(str(plan.out))} --json` lists all"


def _holds_a_sample(plan: Plan) -> bool:
    """Whether a unit of this or an earlier run holds a row to train on."""
    paths = (plan.out / unit.names["record"] for unit in plan.units())
    try:
        return any(UnitRecord.read(path).train.rows for path in paths if path.is_file())
    except PrepareError:  # a damaged record: of a unit, for all that is known
        return True


def _discard(out: Path) -> None:
    """Remove what runs have written that made no sample, and the folder if nothing else is in it."""
    for name in PARTS:
        shutil.rmtree(out / name, ignore_errors=True)
    Board(out).end()
    (out / LOCK_NAME).unlink(missing_ok=True)
    if not any(out.iterdir()):
        out.rmdir()


def check_folder(plan: Plan) -> None:
    """Raises PrepareError if the folder is neither new nor a corpus of these settings."""
    if not plan.out.exists():
        return
    if not plan.out.is_dir():
        raise PrepareError(f"{plan.out} is a file, expected a folder to write to")
    if not (plan.out / STATE).is_file():
        files = (path for path in plan.out.rglob("*") if path.is_file() and PARTIAL not in str(path))
        if any(path.name != LOCK_NAME for path in files):
            raise with_hint(PrepareError(f"{plan.out} is not empty and holds no corpus"), "give another --out")
        return
    changes = changes_since(plan.out, plan.identity)
    if changes:
        raise with_hint(
            PrepareError(f"{plan.out} was begun with other settings: {'; '.join(changes)}"),
            "give the same settings to continue, or another --out",
        )
