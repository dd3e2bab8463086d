"""Which units the driver hands out, with what budget, and how far it says it is: over many files as over few."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from oscar_prep.configuration import Configuration
from oscar_prep.inputs import InputFile
from oscar_prep.ledger import Ledger
from oscar_prep.plan import Plan
from oscar_prep.prepare import Corpus, Running
from oscar_prep.record import Budget, UnitRecord
from oscar_prep.shards import FileRecord
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.worker import Made, Task, facts_of

FILE = FileRecord("train/x", 0, 0, "")


class Counted(dict[int, UnitRecord]):
    """Records that count how often one is looked for."""

    looks = 0

    def __contains__(self, index: object) -> bool:
        self.looks += 1
        return super().__contains__(index)

    def __getitem__(self, index: int) -> UnitRecord:
        self.looks += 1
        return super().__getitem__(index)

    def get(self, index: int, default: Any = None) -> Any:
        self.looks += 1
        return super().get(index, default)


@pytest.fixture
def corpus_of(tmp_path: Path, tokenizer: CorpusTokenizer) -> Callable[..., Corpus]:
    """A corpus of `count` files of three bytes, of which none is read."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")

    def make(count: int, running: Running = Running()) -> Corpus:  # noqa: B008
        files = tuple(InputFile(path, f"{index}.jsonl") for index in range(count))
        return Corpus(Plan(tmp_path / "out", files, tokenizer, Configuration()), running)

    return make


def record(kept: int, tokens: int) -> UnitRecord:
    return UnitRecord("", {}, None, FILE, None, FILE, None, Ledger(documents=kept + 1, kept=kept, tokens=tokens))


def as_defined(budget: Budget, records: dict[int, UnitRecord], index: int) -> Budget | None:
    """What a unit is given: what is left if all before it are known, else the whole; None if the budget is used up."""
    known = [records[before] for before in range(index) if before in records]
    kept, tokens = (sum(getattr(made.ledger, name) for made in known) for name in ("kept", "tokens"))
    if budget.reached(kept, tokens):
        return None
    return budget.less(kept, tokens) if len(known) == index else budget


@pytest.mark.parametrize("seed", range(40))
def test_a_unit_is_given_what_those_before_it_have_left_whoever_is_done_first(
    corpus_of: Callable[..., Corpus], seed: int
) -> None:
    random = Random(seed)
    corpus = corpus_of(30)
    budget = Budget(*random.choice([(60, None), (None, 600), (60, 600), (1000, None)]))
    running: list[Task] = []
    tasks = corpus._until_reached(budget)
    for index in range(31):
        task = next(tasks, None)
        given = as_defined(budget, corpus.records, index) if index < 30 else None
        assert (task and (task.unit.index, task.budget)) == (given and (index, given))
        if task is None:
            break
        running.append(task)
        random.shuffle(running)
        while len(running) > random.randrange(4):
            corpus.records[running.pop().unit.index] = record(random.randrange(8), random.randrange(80))


def test_a_budget_is_planned_by_a_few_looks_at_each_record(corpus_of: Callable[..., Corpus]) -> None:
    corpus = corpus_of(500)
    corpus.records = records = Counted()
    for task in corpus._until_reached(Budget(documents=499)):
        records[task.unit.index] = record(1, 10)
    assert len(records) == 499
    assert records.looks < 5 * 499


def test_progress_is_the_sum_of_what_each_file_said_last(corpus_of: Callable[..., Corpus]) -> None:
    told: list[tuple[Any, ...]] = []
    corpus = corpus_of(3, Running(progress=lambda *what: told.append(what)))
    first, second, _ = (Task(unit, Budget(), None) for unit in corpus.units)
    corpus._hear(first, {"done": 1, "documents": 10, "kept": 5})
    corpus._hear(second, {"done": 2, "documents": 30, "kept": 30})
    corpus._hear(first, {"done": 2, "documents": 20, "kept": 10})
    corpus._hear(first, facts_of(0, Ledger()))  # its worker was lost: it is begun again
    assert told == [
        (1, 9, {"documents": "10", "kept": "50.0%"}),
        (3, 9, {"documents": "40", "kept": "87.5%"}),
        (4, 9, {"documents": "50", "kept": "80.0%"}),
        (2, 9, {"documents": "30", "kept": "100.0%"}),
    ]


def test_workers_are_sent_no_list_of_files(corpus_of: Callable[..., Corpus]) -> None:
    plans: list[Plan] = []

    class Engine:
        name = "none"

        def executor(self, _start: object, plan: Plan, *_: object) -> "Engine":
            plans.append(plan)
            return self

        def run(self, _tasks: list[Task]) -> list[Made]:
            return []

    corpus = corpus_of(3, Running(engine=Engine()))  # type: ignore[arg-type]
    assert corpus.run([])
    assert [plan.files for plan in plans] == [()]
