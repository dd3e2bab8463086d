"""The nine tasks of GLUE (Wang et al., 2019, arXiv 1804.07461) and two more: a table, one row a task.

Names, text columns and the order of the labels are those of `nyu-mll/glue` on the hub, so that a class has the same
number wherever the data came from. File names and columns are those of the official TSV download.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.intents import MASSIVE_INTENTS


def frozen(**entries: str) -> Mapping[str, str]:
    return MappingProxyType(entries)


@dataclass(frozen=True)
class Layout:
    """The files of a task's folder, by split."""

    files: Mapping[str, str]
    held_out: str = ""
    """A file of ID pairs: its rows are the validation split, the rest of the same file the training split."""
    test: str = ""
    """File of the test set, where the name is not that of Task.test."""


@dataclass(frozen=True)
class Hub:
    """A dataset on the hub other than `nyu-mll/glue`."""

    dataset: str
    configuration: str
    label: str = "label"
    """Column of the label."""
    revision: str | None = None


OFFICIAL = Layout(frozen(train="train.tsv", validation="dev.tsv"))


@dataclass(frozen=True, eq=False)
class Task:
    """What sets one task apart: where its rows are, what they say, and how a model is scored on them."""

    name: str
    folder: str
    text: tuple[str, ...]
    """Columns of the TSV files that hold the one or two sentences."""
    label: str
    """Column of the TSV files that holds the label."""
    classes: Mapping[str, str]
    """Label as the TSV writes it → its name on the hub, in the hub's order; empty where the label is a number."""
    numbers: Mapping[str, tuple[str, ...]]
    """Column of the result table → the metrics whose mean it shows."""
    hub_text: tuple[str, ...] = ()
    """Columns on the hub, where they are not those of the TSV files."""
    layouts: tuple[Layout, ...] = (OFFICIAL,)
    columns: tuple[str, ...] = ()
    """Columns of a file without a header."""
    tests: Mapping[str, str] | None = None
    """As `test`, where there is not just one test set."""
    hub: Hub | None = None
    """Where the hub has it; None is `nyu-mll/glue` under the task's name, with a column `label`."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Keys of the protocol that its paper sets otherwise; a setting that the user gives goes before."""
    skips_short_rows: bool = False
    """Rows with missing fields are left out and counted, as the hub does; elsewhere they are refused."""
    in_average: bool = True

    @property
    def test(self) -> Mapping[str, str]:
        """File of the leaderboard, without its ending → TSV file of the test set, which always has a header."""
        return self.tests or {self.folder: "test.tsv"}

    @property
    def is_regression(self) -> bool:
        return not self.classes

    @property
    def one_digit(self) -> bool:
        """Whether the number of a class is a single digit."""
        return 0 < len(self.classes) <= 10

    @property
    def validation_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.layouts[0].files if split.startswith("validation"))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(metric for metrics in self.numbers.values() for metric in metrics)


HIGHEST_SCORE = 5
"""Of STS-B; the lowest is 0."""
ACCURACY = ("accuracy",)
ACCURACY_AND_F1 = ("accuracy", "f1")
HYBRID_BERT = MappingProxyType({"learning_rate": 5e-5, "batch_size": 64})
ENTAILMENT = frozen(entailment="entailment", not_entailment="not_entailment")

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "mrpc",
            "MRPC",
            ("#1 String", "#2 String"),
            "Quality",
            MappingProxyType({"0": "not_equivalent", "1": "equivalent"}),
            {"mrpc": ACCURACY_AND_F1},
            hub_text=("sentence1", "sentence2"),
            layouts=(
                OFFICIAL,
                Layout(
                    frozen(train="msr_paraphrase_train.txt", validation="msr_paraphrase_train.txt"),
                    held_out="mrpc_dev_ids.tsv",
                    test="msr_paraphrase_test.txt",
                ),
            ),
        ),
        Task(
            "cola",
            "CoLA",
            ("sentence",),
            "label",
            MappingProxyType({"0": "unacceptable", "1": "acceptable"}),
            {"cola": ("matthews_correlation",)},
            columns=("source", "label", "original_judgement", "sentence"),
        ),
        Task(
            "mnli",
            "MNLI",
            ("sentence1", "sentence2"),
            "gold_label",
            frozen(entailment="entailment", neutral="neutral", contradiction="contradiction"),
            {"mnli_m": ACCURACY, "mnli_mm": ("accuracy_mm",)},
            hub_text=("premise", "hypothesis"),
            layouts=(
                Layout(
                    frozen(
                        train="train.tsv",
                        validation_matched="dev_matched.tsv",
                        validation_mismatched="dev_mismatched.tsv",
                    )
                ),
            ),
            tests=MappingProxyType({"MNLI-m": "test_matched.tsv", "MNLI-mm": "test_mismatched.tsv"}),
        ),
        Task(
            "qqp",
            "QQP",
            ("question1", "question2"),
            "is_duplicate",
            MappingProxyType({"0": "not_duplicate", "1": "duplicate"}),
            {"qqp": ACCURACY_AND_F1},
            skips_short_rows=True,
        ),
        Task("rte", "RTE", ("sentence1", "sentence2"), "label", ENTAILMENT, {"rte": ACCURACY}),
        Task("stsb", "STS-B", ("sentence1", "sentence2"), "score", frozen(), {"stsb": ("pearson", "spearmanr")}),
        Task("qnli", "QNLI", ("question", "sentence"), "label", ENTAILMENT, {"qnli": ACCURACY}),
        Task(
            "sst2",
            "SST-2",
            ("sentence",),
            "label",
            MappingProxyType({"0": "negative", "1": "positive"}),
            {"sst2": ACCURACY},
        ),
        Task(
            "wnli",
            "WNLI",
            ("sentence1", "sentence2"),
            "label",
            MappingProxyType({"0": "not_entailment", "1": "entailment"}),
            {"wnli": ACCURACY},
            in_average=False,
        ),
        # Srinivasagan & Ostermann (2024, NAACL SRW) fine-tune on the next two. FitzGerald et al., 2022, arXiv
        # 2204.08582: the English locale, whose utterances ask for one of 60 intents.
        Task(
            "massive",
            "MASSIVE",
            ("text",),
            "label",
            frozen(**{intent: intent for intent in MASSIVE_INTENTS}),
            {"massive": ACCURACY},
            hub_text=("utt",),
            hub=Hub("AmazonScience/massive", "en-US", label="intent", revision="refs/convert/parquet"),
            settings={**HYBRID_BERT, "epochs": 15},
            in_average=False,
        ),
        # Saravia et al., 2018, EMNLP: tweets.
        Task(
            "emotion",
            "Emotion",
            ("text",),
            "label",
            frozen(**{emotion: emotion for emotion in ("sadness", "joy", "love", "anger", "fear", "surprise")}),
            {"emotion": ACCURACY},
            hub=Hub("dair-ai/emotion", "split"),
            settings={**HYBRID_BERT, "epochs": 10},
            in_average=False,
        ),
    )
}
"""In the order of Table 3 of Courtois et al. (2024, arXiv 2406.06366), which leaves WNLI out; then two beside GLUE."""

NUMBERS: tuple[str, ...] = tuple(number for task in TASKS.values() if task.in_average for number in task.numbers)
"""The nine numbers whose mean is the GLUE score."""

Groups = tuple[tuple[str, ...], ...]
_BY_TASK: Groups = tuple(tuple(task.numbers) for task in TASKS.values() if task.in_average)
AVERAGES: Mapping[str, tuple[Groups, str]] = {
    "nine": (tuple((number,) for number in NUMBERS), "nine numbers"),
    "tasks": (_BY_TASK, "eight tasks"),
    "leaderboard": ((*_BY_TASK, ("wnli",)), "nine tasks"),
}
"""What a GLUE score averages: groups of numbers, each first averaged in itself, and what to call them.

`nine` is that of Courtois et al. (2024); `tasks` counts MNLI once; `leaderboard` also counts WNLI, as the GLUE
leaderboard does.
"""


def chosen_average(name: str) -> str:
    """The name of an average. Raises TrainError for one that is none."""
    if name not in AVERAGES:
        raise TrainError(f"`{name}` is not an average, expected one of {', '.join(AVERAGES)}")
    return name


def heading(number: str) -> str:
    """What a column of the result table is called."""
    return number.replace("_", "-")


def task_of(number: str) -> Task:
    """The task that a column of the result table belongs to."""
    return next(task for task in TASKS.values() if number in task.numbers)


def chosen_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of these names, each once; `all` stands for those of the average.

    Raises TrainError for a name that no task has.
    """
    chosen: dict[str, Task] = {}
    for name in names:
        if name == "all":
            chosen |= {task.name: task for task in TASKS.values() if task.in_average}
        else:
            chosen[name] = named_task(name)
    return list(chosen.values())


def named_task(name: str) -> Task:
    """The task of this name. Raises TrainError, with the nearest name, if there is none."""
    if name in TASKS:
        return TASKS[name]
    spellings = {spelling: task.name for task in TASKS.values() for spelling in (task.name, task.folder.lower())}
    near = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.5)
    error = TrainError(f"`{name}` is not a GLUE task, expected all, or some of {', '.join(TASKS)}")
    raise with_hint(error, f"did you mean `{spellings[near[0]]}`?") if near else error
