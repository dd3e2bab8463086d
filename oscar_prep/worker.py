"""What each worker does to make a unit, and what it needs for that."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa

from durable.board import Facts
from durable.errors import with_hint
from durable.files import file_sha256, write_json
from durable.remote import RemotePath
from durable.tasks import Needs, Tell, Work
from oscar_prep.damage import reading
from oscar_prep.errors import PrepareError
from oscar_prep.ledger import Ledger
from oscar_prep.plan import MANIFEST, TOKENIZER, Plan
from oscar_prep.record import DIFFERS, Budget, Unit, UnitRecord
from oscar_prep.shards import problem, read_json
from oscar_prep.tokenize import Encoder
from oscar_prep.unit import UnitProcessor
from oscar_prep.upload import Upload


@dataclass(frozen=True)
class Task:
    """A unit for a worker, with the budget that is left for it and its record from an earlier run."""

    unit: Unit
    budget: Budget
    record: UnitRecord | None


@dataclass(frozen=True)
class Made:
    """A unit's record, and what was wrong with its files if an earlier run had made it and it was made anew."""

    record: UnitRecord
    damage: str | None = None


def key_of(task: Task) -> str:
    """Its name on the board."""
    return task.unit.stem


def facts_of(read: int, ledger: Ledger) -> Facts:
    """What a worker tells of a unit while it makes it."""
    return {"done": read, "documents": ledger.documents, "kept": ledger.kept}


def needs_of(plan: Plan, ship_files: bool) -> Needs:
    """What a machine must see to make a unit; with `ship_files` it is sent lists and models."""
    folders, files = (plan.out, plan.out / TOKENIZER), plan.sources.paths()
    if ship_files:
        return Needs(folders, _input_of, shipped=files, moved=_moved)
    return Needs((*folders, *files), _input_of)


def _moved(plan: Plan, places: Mapping[Path, Path]) -> Plan:
    return replace(plan, sources=plan.sources.moved(places))


def _input_of(task: Task) -> list[Path]:
    path = task.unit.file.path
    return [path] if isinstance(path, Path) else []  # a URL is read from anywhere


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def keep_pandas_out() -> None:
    """Let pyarrow find, when it looks for the only time, no pandas: to know a Series it would import it, for 0.25 s."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)


def set_up_process() -> None:
    """What every process that reads a corpus does first, to start fast and to stay small."""
    keep_pandas_out()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are as many as the cores
    # Arrow's Parquet reader reserves a page's bytes twice; the system's allocator gives it only what it touches.
    pa.set_memory_pool(pa.system_memory_pool())


def start_worker(plan: Plan) -> Work[Task, Made]:
    """What each worker process does once: load the tokenizer and the lists; returns what it does for each task."""
    set_up_process()
    annotators = plan.sources.annotators(plan.configuration)
    is_exact = not (plan.out / DIFFERS).is_file()
    encoder = Encoder.of(plan.tokenizer) if is_exact else Encoder(plan.tokenizer, None)
    processor = UnitProcessor(plan.out, plan.configuration, encoder, annotators)

    def work(task: Task, tell: Tell) -> Made:
        record, damage = task.record, None
        if record is not None:
            _check_input(plan, task.unit, record)
            damage = _damage(plan, record)
        if record is None or damage or record.budget not in (None, task.budget):
            # A corpus of which a part is written anew is not finished, whatever ends the run before its end.
            (plan.out / MANIFEST).unlink(missing_ok=True)
            _remember(plan, task.unit)
            record = processor.process(task.unit, task.budget, lambda read, ledger: tell(facts_of(read, ledger)))
        if plan.target is not None:
            Upload(plan.out, plan.target).unit(task.unit, record)
        return Made(record, damage)

    return work


def _remember(plan: Plan, unit: Unit) -> None:
    """Write down what a store says of an input file before it is read, so that a later run need not read it again."""
    path = unit.file.path
    if isinstance(path, RemotePath):
        (plan.out / unit.names["record"]).unlink(missing_ok=True)  # of what the store said something else about
        write_json(plan.out / unit.names["source"], _source(path), name="source")


def _source(path: RemotePath) -> dict[str, Any]:
    size, version = path.state()
    return {"url": path.url, "bytes": size, "version": version}


def _is_known(plan: Plan, unit: Unit) -> bool:
    """Whether a store says of an input file what it said when the unit was made."""
    path, written = unit.file.path, plan.out / unit.names["source"]
    if not isinstance(path, RemotePath) or not written.is_file():
        return False
    source = _source(path)
    return source["version"] is not None and read_json(written) == source


def _check_input(plan: Plan, unit: Unit, record: UnitRecord) -> None:
    """Raises PrepareError if a unit's input is another file than the one of which its record was made."""
    path, then = unit.file.path, record.input["sha256"]
    with reading(path):
        now = then if _is_known(plan, unit) else file_sha256(path)
    if now != then:
        raise with_hint(
            PrepareError(f"{path} has changed since this corpus was begun: sha256 {then[:12]}… → {now[:12]}…"),
            "give another --out",
        )


def _damage(plan: Plan, record: UnitRecord) -> str | None:
    """What is wrong with a unit's ids, or with its first file that is not the one recorded; None if nothing is."""
    if record.is_doubtful(plan.out):
        return "nanotoken computed its ids, and gave wrong ones elsewhere in this corpus"
    found = ((file.file, problem(plan.out, file)) for file in record.files())
    return next((f"{name}: {what}" for name, what in found if what), None)
