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

from pydantic import Field

from durable.checked import FROM_A_COPY, Shape, checked, read_json
from durable.errors import DurableError, with_hint
from durable.settings import flatten, read_toml
from report.errors import ReportError
from report.published import SIZES
from train.errors import TrainError
from train.glue.pretraining import described
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
    def gain(self) -> float:
        """The factor of the attention's logits."""
        return float(self.settings.get("model.attention_logit_gain", 1.0))

    @property
    def pretraining(self) -> dict[str, Any] | None:
        """Its seed, and what else decided it; None if environment.json does not say."""
        return described(self.environment)

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
    except TrainError as error:
        raise with_hint(ReportError(str(error)), FROM_A_COPY) from None
    evaluations = tuple(sorted((_evaluation(row, folder) for row in rows if row["kind"] == "evaluation"), key=_step))
    rates = [_rate(row, folder) for row in rows if row["kind"] == "train"]
    last_step = max((row["step"] for row in rows), default=0)
    if not evaluations:
        raise with_hint(
            ReportError(f"{folder} holds no evaluation yet"), "let `symbert pretrain` reach its first evaluation"
        )
    rate = statistics.median(rates) if rates else None
    return Run(folder, settings, environment, evaluations, rate, last_step)


class _Model(Shape):
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    attention_logit_gain: float = 1.0


class _Schedule(Shape):
    max_steps: int = Field(gt=0)


class _Data(Shape):
    sequence_length: int | None = None


class _Training(Shape):
    seed: int = 0


class _Recipe(Shape):
    """What a report computes with; all else in a recipe is shown as it is."""

    model: _Model
    schedule: _Schedule
    data: _Data = _Data()
    training: _Training = _Training()


class _Identity(Shape):
    corpus_hash: str = ""


class _Invocation(Shape):
    device: str | None = None


class _Environment(Shape):
    identity: _Identity = _Identity()
    invocations: list[_Invocation] | None = None
    assumptions: dict[str, Any] | None = None
    unigram_entropy: float | None = None
    parameters: int | None = None


class _Rate(Shape):
    tokens_per_second: float = Field(ge=0)


class _Evaluated(Shape):
    step: int
    tokens: int = Field(ge=0)
    evaluation_loss: float
    evaluation_standard_error: float | None = None
    evaluation_accuracy: float | None = None


def _settings(path: Path) -> dict[str, Any]:
    try:
        recipe = read_toml(path)
    except DurableError as error:
        raise with_hint(ReportError(str(error)), FROM_A_COPY) from None
    checked(_Recipe, recipe, path, ReportError)
    return flatten(recipe)


def _environment(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = read_json(path, ReportError)
    checked(_Environment, document, path, ReportError)
    return document


def _evaluation(row: Mapping[str, Any], folder: Path) -> Evaluation:
    found = checked(_Evaluated, row, folder / METRICS, ReportError)
    return Evaluation(
        found.step,
        found.tokens,
        found.evaluation_loss,
        found.evaluation_standard_error,
        found.evaluation_accuracy,
    )


def _rate(row: Mapping[str, Any], folder: Path) -> float:
    return checked(_Rate, row, folder / METRICS, ReportError).tokens_per_second


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
