"""Run folders read back: what each run was, how its evaluation loss fell, how fast it went.

RUN/recipe.toml, environment.json, metrics.jsonl, checkpoints/   as `symbert pretrain` writes them
"""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.errors import DurableError, with_hint
from durable.settings import flatten, read_toml
from report.errors import ReportError
from report.published import SIZES
from train.metrics import NAME as METRICS
from train.metrics import read_metrics

RECIPE, ENVIRONMENT = "recipe.toml", "environment.json"
# The safetensors format allows no longer header.
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run."""

    step: int
    tokens: int
    loss: float
    standard_error: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path
    settings: Mapping[str, Any]
    """The resolved recipe, flat: {"model.hidden_size": 512, …}."""
    environment: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    """By step, the first before step 1."""
    tokens_per_second: float | None
    """Median over the steps."""
    last_step: int

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def operator(self) -> str:
        """The attention operator; where layers differ, `mixed`."""
        names = set(str(self.settings.get("model.attention_operator", "original")).split(","))
        return names.pop() if len(names) == 1 else "mixed"

    @property
    def architecture(self) -> tuple[int, int, int, int]:
        """Layers, heads, hidden size, intermediate size."""
        keys = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
        layers, heads, hidden, intermediate = (int(self.settings[f"model.{key}"]) for key in keys)
        return layers, heads, hidden, intermediate

    @property
    def size(self) -> str:
        """`small` or `base`, or the architecture in words."""
        layers, heads, hidden, _ = self.architecture
        return SIZES.get(self.architecture, f"{layers} layers, {heads} heads, width {hidden}")

    @property
    def corpus(self) -> str:
        """The hash of the corpus that it was trained on."""
        return str(self.environment.get("identity", {}).get("corpus_hash", ""))

    @property
    def max_steps(self) -> int:
        return int(self.settings["schedule.max_steps"])

    @property
    def finished(self) -> bool:
        """Whether the schedule is at its end, or its compute budget is used."""
        return self.last_step >= self.max_steps or bool(self.environment.get("finished"))

    @property
    def seed(self) -> int:
        return int(self.settings.get("training.seed", 0))

    @property
    def device(self) -> str:
        """Where the newest invocation ran."""
        invocations = self.environment.get("invocations") or [{}]
        return str(invocations[-1].get("device", ""))

    @property
    def parameters(self) -> int | None:
        """As recorded, else the numbers in the newest checkpoint's weights; tied ones count once."""
        recorded = self.environment.get("parameters")
        if isinstance(recorded, int):
            return recorded
        weights = sorted(self.folder.glob("checkpoints/step-*/model.safetensors"))
        return _count_stored(weights[-1]) if weights else None


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises ReportError if it is none, is damaged, or has not been evaluated yet."""
    if not folder.is_dir():
        raise ReportError(f"{folder} does not exist, expected a run folder of `symbert pretrain`")
    missing = [name for name in (RECIPE, ENVIRONMENT, METRICS) if not (folder / name).is_file()]
    if missing:
        raise with_hint(
            ReportError(f"{folder} is no run folder: {missing[0]} is missing"),
            "runs are given as they are; a corpus with --corpus DIR, a GLUE folder with --glue DIR",
        )
    settings = _settings(folder / RECIPE)
    environment = _environment(folder / ENVIRONMENT)
    try:
        rows = read_metrics(folder)
        evaluations = tuple(sorted((_evaluation(row) for row in rows if row["kind"] == "evaluation"), key=_step))
        rates = [row["tokens_per_second"] for row in rows if row["kind"] == "train"]
        last_step = max((row["step"] for row in rows), default=0)
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{folder / METRICS} is damaged: {error!r}") from None
    if not evaluations:
        raise with_hint(
            ReportError(f"{folder} holds no evaluation yet"), "let `symbert pretrain` reach its first evaluation"
        )
    rate = statistics.median(rates) if rates else None
    return Run(folder, settings, environment, evaluations, rate, last_step)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = flatten(read_toml(path))
    except DurableError as error:
        raise ReportError(str(error)) from None
    needed = [f"model.{key}" for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    missing = [key for key in (*needed, "model.intermediate_size", "schedule.max_steps") if key not in settings]
    if missing:
        raise ReportError(f"{path} is not the resolved recipe of a run: `{missing[0]}` is missing")
    return settings


def _environment(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ReportError(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise ReportError(f"{path} is damaged: expected an object")
    return document


def _evaluation(row: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        int(row["step"]),
        int(row["tokens"]),
        float(row["evaluation_loss"]),
        row.get("evaluation_standard_error"),
        row.get("evaluation_accuracy"),
    )


def _step(evaluation: Evaluation) -> int:
    return evaluation.step


def _count_stored(weights: Path) -> int:
    """The numbers of a safetensors file, from its header alone: 8 bytes of length, then JSON."""
    with weights.open("rb") as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER))
    try:
        tensors = {name: tensor for name, tensor in json.loads(header).items() if name != "__metadata__"}
        return sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{weights} is damaged: {error!r}") from None
