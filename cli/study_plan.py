"""What a study will take, told before it begins: time, disk, and the basis of each figure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.chain import as_typed
from cli.study import MICRO_BATCH, NANO_PROTOCOL, PAPERS_DOCUMENTS, Study, Variant

if TYPE_CHECKING:
    import torch

    from train.recipe import Recipe

SHARE_OF_MATRIX_RATE = {"cpu": 0.35, "cuda": 0.4}
"""Of the rate of one large matrix product, what a run reaches. On a CPU nano reached 0.37, BERT-small 0.67. That of a
GPU is what compiled BERT models of this size usually reach; we have not measured it."""
REFERENCE_GPU = ("an H100 SXM", 989e12)
"""For a plan made where there is no GPU: dense bf16 operations a second, by NVIDIA's data sheet."""
STEPS_PER_SECOND = {"cpu": (30, "measured for nano on one core"), "cuda": (20, "assumed")}
"""Of fine-tuning at most: its batches are small, in float32, and each of them costs what any step costs. Nano's RTE
took 8 to 9 s for 250 steps on each of two cores."""
GLUE_TRAIN_ROWS = 949_098
"""CoLA 8,551, SST-2 67,349, MRPC 3,668, STS-B 5,749, QQP 363,846, MNLI 392,702, QNLI 104,743, RTE 2,490."""
GLUE_DEV_ROWS = 69_640
GLUE_TOKENS = 40
"""Mean of an example, over all training sets."""
NANO_ROWS, NANO_DEV_ROWS, NANO_TOKENS = 2_400, 600, 24
PREPARED_BYTES_PER_SECOND = 16e6
"""Of compressed input, one core: docs/benchmarks.md, 33 MB of .zst in 2.0 s of CPU after the start."""
TOKENS_PER_INPUT_BYTE = 0.55
"""Of compressed input that no filter drops."""
TOKENS_PER_DOCUMENT = 70e9 / PAPERS_DOCUMENTS
DOCUMENT_BYTES = 400
"""In documents/*.parquet."""
PROCESS_BYTES = 1 << 30
"""A Python process with torch and transformers, before it has a model."""
NANO_INPUT_BYTES, NANO_SECONDS = 2e6, 40
"""Reading the documentation strings, training the tokenizer, preparing, and drawing the report."""


@dataclass(frozen=True)
class Stage:
    """A line of the plan."""

    name: str
    what: str
    seconds: float
    disk_bytes: float
    basis: str


@dataclass(frozen=True)
class Plan:
    """All stages, and what they add up to."""

    stages: list[Stage]
    device: str
    at_once: int
    """Runs at a time."""
    finished: int
    """Runs that are there already; they cost nothing any more."""
    commands: list[str]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Pre-training and GLUE; 0 on a CPU."""
        if self.device == "cpu":
            return 0.0
        return sum(stage.seconds for stage in self.stages if stage.name in ("pre-training", "GLUE")) / 3600

    def as_document(self) -> dict[str, Any]:
        """For --json."""
        totals = {"seconds": self.seconds, "gpu_hours": self.gpu_hours}
        totals["disk_bytes"] = sum(stage.disk_bytes for stage in self.stages)
        return {**asdict(self), **totals}

    def as_text(self) -> str:
        """A table, the basis of each line, and the commands."""
        lines = [f"{'stage':<14}{'time':>9}{'disk':>10}  what"]
        for stage in self.stages:
            lines.append(f"{stage.name:<14}{duration(stage.seconds):>9}{size(stage.disk_bytes):>10}  {stage.what}")
        document = self.as_document()
        device = self.device if self.device == "cpu" else f"{self.device}, {self.gpu_hours:,.1f} GPU hours"
        lines.append(f"{'together':<14}{duration(self.seconds):>9}{size(document['disk_bytes']):>10}  {device}")
        lines += ["", "Estimated from", *(f"  {stage.name}: {stage.basis}" for stage in self.stages)]
        return "\n".join([*lines, "", "Commands", *(f"  {command}" for command in self.commands)])


def make_plan(study: Study) -> Plan:
    """Count, measure the device for a moment, and estimate; writes nothing."""
    from durable.machine import available_cores
    from train.device import find_device, with_precision

    device = find_device(study.device)
    unfinished = [run for run in study.runs if not is_finished(study, *run)]
    recipes = [with_precision(study.recipe(*run), device) for run in unfinished]
    at_once = runs_at_once(study, device)
    rate = _Rate.of(study, device)
    stages = [
        _corpus(study, available_cores()),
        # A GPU in the place of one that this machine lacks computes as a GPU does: one after another.
        _pretraining(study, recipes, at_once if rate.device == "cpu" else 1, rate),
        _glue(study, available_cores() if rate.device == "cpu" else 1, rate),
    ]
    finished = len(study.runs) - len(unfinished)
    return Plan(stages, rate.device, at_once, finished, [as_typed(command) for command in study.commands()])


def with_micro_batch(study: Study, record: Mapping[str, Any] | None) -> Study:
    """The study with one micro-batch for all of its runs: its record's, else the smallest that one of them would take.

    Their dropout depends on it, so that they would otherwise differ in more than their operators. On a CPU it is the
    same anyway, and what the recipe sets is left alone.
    """
    from train.device import find_device, with_precision
    from train.memory import with_micro_batch as fitted

    device = find_device(study.device)
    recipes = {run: with_precision(study.recipe(*run), device) for run in study.runs}
    if device.type == "cpu" or all(recipe.runtime.micro_batch_size for recipe in recipes.values()):
        return study
    sizes = [fitted(recipe, device, study.folder(*run)).runtime.micro_batch_size for run, recipe in recipes.items()]
    return replace(study, micro_batch_size=(record or {}).get(MICRO_BATCH) or min(filter(None, sizes)))


def is_finished(study: Study, variant: Variant, seed: int) -> bool:
    """Whether the run's last checkpoint is there."""
    from train.checkpoint import STATE, checkpoint_folder

    steps = study.recipe(variant, seed).schedule.max_steps
    return (checkpoint_folder(study.folder(variant, seed), steps) / STATE).is_file()


def runs_at_once(study: Study, device: "torch.device") -> int:
    """One on a GPU; on a CPU one a core, as far as memory goes."""
    from durable.machine import available_cores, available_memory
    from train.device import with_precision
    from train.memory import memory_bytes, micro_batch_size

    if device.type != "cpu":
        return 1
    recipes = [with_precision(study.recipe(*run), device) for run in study.runs]
    largest = max(memory_bytes(recipe, "cpu", micro_batch_size(recipe, device)) for recipe in recipes)
    return max(1, min(available_cores(), len(study.runs), available_memory() // (largest + PROCESS_BYTES)))


@dataclass(frozen=True)
class _Rate:
    """Useful operations a second: of one run on a GPU, of one core on a CPU."""

    device: str
    flops_per_second: float
    basis: str

    @classmethod
    def of(cls, study: Study, device: "torch.device") -> "_Rate":
        import torch

        from train.device import with_precision
        from train.predict import PRECISIONS
        from train.preflight import matrix_rate

        if device.type == "cpu" and study.scale != "nano" and study.device is None:
            name, flops = REFERENCE_GPU
            share = SHARE_OF_MATRIX_RATE["cuda"]
            return cls(
                name, share * flops, f"{name}, since this machine has no GPU: {share:.0%} of its {flops:.3g} FLOP/s"
            )
        recipe = with_precision(study.recipe(*study.runs[0]), device)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        measured = matrix_rate(device, PRECISIONS[recipe.training.precision])
        torch.set_num_threads(threads)
        share, each = SHARE_OF_MATRIX_RATE[device.type], " on one core" if device.type == "cpu" else ""
        kind = f"a large matrix product in {recipe.training.precision}{each}, just now"
        basis = f"{share:.0%} of {measured:.3g} FLOP/s, {kind}"
        return cls(device.type, share * measured, basis)


def _corpus(study: Study, cores: int) -> Stage:
    if study.scale == "nano":
        return Stage(
            "corpus", "Python's documentation strings", NANO_SECONDS, 10 * NANO_INPUT_BYTES, "as measured once"
        )
    compressed = sum(_bytes_below(Path(path)) for path in study.sources.inputs)
    tokens = min(compressed * TOKENS_PER_INPUT_BYTE, PAPERS_DOCUMENTS * TOKENS_PER_DOCUMENT)
    documents = tokens / TOKENS_PER_DOCUMENT
    read = tokens / TOKENS_PER_INPUT_BYTE
    return Stage(
        "corpus",
        f"at most {tokens / 1e6:,.0f}M tokens from {size(compressed)}, {cores} files at a time",
        read / PREPARED_BYTES_PER_SECOND / cores,
        2 * tokens + documents * DOCUMENT_BYTES,
        f"{PREPARED_BYTES_PER_SECOND / 1e6:.0f} MB/s of compressed input a core, {TOKENS_PER_INPUT_BYTE} tokens a byte "
        "and nothing dropped; `symbert prepare SHARDS --estimate 0.01` reads a part of it and knows better",
    )


def _pretraining(study: Study, recipes: "list[Recipe]", at_once: int, rate: _Rate) -> Stage:
    from symbert import count_parameters
    from train.checkpoint import FIGURE_3_STEPS
    from train.preflight import flops_per_token
    from train.recipe import symbert_config

    seconds = disk = tokens = 0.0
    for recipe in recipes:
        steps = recipe.schedule.max_steps
        tokens += (seen := steps * recipe.training.batch_size * recipe.data.sequence_length)
        seconds += seen * flops_per_token(recipe) / rate.flops_per_second
        kept = sum(step < steps for step in FIGURE_3_STEPS)
        # fp32: the newest two with both moments, the weights alone at the steps of Figure 3.
        disk += count_parameters(symbert_config(recipe.model)) * 4 * (2 * 3 + kept)
    done = len(study.runs) - len(recipes)
    told = f", {done} of {len(study.runs)} are there already" if done else ""
    what = f"{len(recipes)} runs, {tokens / 1e6:,.0f}M tokens, {at_once} at a time{told}"
    return Stage("pre-training", what, seconds / at_once, disk, rate.basis)


def _glue(study: Study, at_once: int, rate: _Rate) -> Stage:
    from symbert import count_flops
    from train.glue.protocol import resolve_protocol
    from train.recipe import symbert_config

    nano = study.scale == "nano"
    rows, dev_rows, length = (
        (NANO_ROWS, NANO_DEV_ROWS, NANO_TOKENS) if nano else (GLUE_TRAIN_ROWS, GLUE_DEV_ROWS, GLUE_TOKENS)
    )
    protocol = resolve_protocol([f"{key}={value:g}" for key, value in NANO_PROTOCOL.items()] if nano else [])
    seconds = 0.0
    for run in study.runs:
        # No position is predicted; backward costs twice the forward pass.
        flops = count_flops(symbert_config(study.recipe(*run).model), length, 0)
        seconds += (3 * rows * protocol.epochs + dev_rows) * flops / rate.flops_per_second
    cells = len(study.runs) * study.glue_seeds
    seconds *= study.glue_seeds
    basis = f"{rows:,} examples of about {length} tokens, {protocol.epochs} epochs, at the rate of pre-training"
    most, how = STEPS_PER_SECOND["cpu" if rate.device == "cpu" else "cuda"]
    seconds = max(seconds, cells * protocol.epochs * rows / protocol.batch_size / most)
    basis += f", or {most} steps a second if that is less ({how})"
    tasks = "the demo's two tasks" if nano else "eight tasks"
    what = f"{len(study.runs)} models, {tasks}, {study.glue_seeds} seeds, {at_once} at a time"
    return Stage("GLUE", what, seconds / at_once, 1e4 * cells, basis)


def _bytes_below(path: Path) -> int:
    if path.is_dir():
        return sum(found.stat().st_size for found in path.rglob("*.jsonl*") if found.is_file())
    return path.stat().st_size if path.is_file() else 0


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}" if seconds < 20 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def size(number: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:,.1f} {unit}" if number < 10 * length else f"{number / length:,.0f} {unit}"
    return f"{number / 1e3:,.0f} kB"
