"""A study: which models are trained, and the commands that lead from a corpus to the report.

`small` and `base` are the two sizes of Courtois et al. (2024, arXiv 2406.06366); `nano` is our own, for two cores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.recipe import Recipe

SCALES = ("nano", "small", "base")
RECORD = "study.json"
MICRO_BATCH = "micro_batch_size"
"""What the record calls the one of all runs."""


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared."""

    name: str
    operator: str
    why: str
    assignments: tuple[str, ...] = ()
    gain_is_root_of_head_size: bool = False

    def settings(self, head_size: int) -> list[str]:
        """What it sets in the recipe beside its operator."""
        gain = [f"model.attention_logit_gain={math.sqrt(head_size)!r}"] if self.gain_is_root_of_head_size else []
        return [*self.assignments, *gain]


PAPER = (
    Variant("original", "original", "the baseline"),
    Variant("symmetric", "symmetric", "no key projection"),
    Variant("pairwise", "pairwise", "S starts at N(0, 1), as in the authors' code"),
)
SCALED = Variant(
    "pairwise-scaled",
    "pairwise",
    "S starts at N(0, 1/d): first scores as large as the original's",
    ("model.pairwise_init=scaled",),
)
CONTROLS = (
    SCALED,
    Variant(
        "pairwise-identity",
        "pairwise",
        "S starts at the identity: symmetric at first",
        ("model.pairwise_init=identity",),
    ),
    Variant("original-gain", "original", "first scores as large as pairwise's", gain_is_root_of_head_size=True),
    Variant("shared", "shared", "one projection for query, key and value (Kowsher et al., 2024)"),
    Variant("additive", "additive", "additive attention (Srinivasagan & Ostermann, 2024)"),
)


@dataclass(frozen=True)
class Sources:
    """What a study of the paper's sizes starts from."""

    inputs: tuple[str, ...] = ()
    """Shards, or folders of them."""
    tokenizer: str = "bert-base-uncased"
    data_dir: str | None = None
    """GLUE's TSV files; None takes the tasks from the hub."""


@dataclass(frozen=True)
class Study:
    """Everything that decides what is computed, and where it goes."""

    scale: str
    out: Path
    sources: Sources = field(default_factory=Sources)
    seeds: int = 1
    controls: bool = False
    assignments: tuple[str, ...] = ()
    """Changes to the recipe of every run."""
    device: str | None = None
    micro_batch_size: int | None = None
    """Of every run, where the study chooses it: see study_plan.with_micro_batch."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Nano shows at once what the scale of S does; at the paper's sizes that is one of the controls."""
        if self.controls:
            return (*PAPER, *CONTROLS)
        return (*PAPER, SCALED) if self.scale == "nano" else PAPER

    @property
    def runs(self) -> list[tuple[Variant, int]]:
        """The models and their seeds; every seed is done with all models before the next begins."""
        return [(variant, seed) for seed in range(1, self.seeds + 1) for variant in self.variants]

    def folder(self, variant: Variant, seed: int) -> Path:
        """The run folder of a model."""
        return self.out / "runs" / f"{variant.name}-seed-{seed}"

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    @property
    def scores(self) -> Path:
        return self.out / "scores"

    @property
    def page(self) -> Path:
        return self.out / "report.html"

    @property
    def tokenizer(self) -> str:
        return str(self.out / "tokenizer") if self.scale == "nano" else self.sources.tokenizer

    def recipe(self, variant: Variant, seed: int) -> "Recipe":
        """What a run computes. Raises a refusal in words if an assignment is none."""
        from train.recipe import load_recipe

        return load_recipe(
            "nano" if self.scale == "nano" else None,
            operator=variant.operator,
            size=None if self.scale == "nano" else self.scale,
            assignments=self._settings(variant, seed),
        )

    def _settings(self, variant: Variant, seed: int) -> list[str]:
        from train.recipe import load_recipe

        nano = self.scale == "nano"
        source, size = ("nano", None) if nano else (None, self.scale)
        model = load_recipe(source, size=size, assignments=self.assignments).model
        head_size = model.hidden_size // model.num_attention_heads
        return [f"training.seed={seed}", *variant.settings(head_size), *self.assignments]

    def tokenizer_command(self) -> list[str]:
        """Of nano alone: the others come with theirs."""
        size = self.recipe(PAPER[0], 1).model.vocab_size
        shards = str(self.out / "oscar" / "en_meta")
        return ["tokenizer", "train", shards, "--out", self.tokenizer, "--vocabulary-size", str(size)]

    def prepare_command(self) -> list[str]:
        """Nano's texts carry no perplexity, and quality rules for web pages would leave little of them."""
        recipe = self.recipe(PAPER[0], 1)
        options = ["--out", str(self.corpus), "--tokenizer", self.tokenizer]
        options += ["--sequence-length", str(recipe.data.sequence_length)]
        if self.scale == "nano":
            options += ["--missing-harmful-pp", "keep", "--drop-warnings", "none"]
            options += ["--validation-samples", str(recipe.evaluation.samples), "--validation-share", "0.1"]
            return ["prepare", str(self.out / "oscar" / "en_meta"), *options]
        return ["prepare", *self.sources.inputs, *options, "--max-documents", str(PAPERS_DOCUMENTS)]

    def pretrain_command(self, variant: Variant, seed: int) -> list[str]:
        """One run; the same command again resumes it."""
        model = ["--recipe", "nano"] if self.scale == "nano" else ["--size", self.scale]
        words = ["pretrain", "--data", str(self.corpus), "--out", str(self.folder(variant, seed)), *model]
        words += ["--operator", variant.operator]
        chosen = [] if self.micro_batch_size is None else [f"runtime.micro_batch_size={self.micro_batch_size}"]
        for assignment in [*self._settings(variant, seed), *chosen]:
            words += ["--set", assignment]
        return [*words, *self._device()]

    def glue_command(self) -> list[str]:
        """All runs in one grid, so that they stand in one table."""
        words = ["glue", *(str(self.folder(*run)) for run in self.runs), "--out", str(self.scores)]
        if self.scale == "nano":
            words += ["--data-dir", str(self.out / "glue"), "--tasks", ",".join(NANO_TASKS)]
            for key, value in NANO_PROTOCOL.items():
                words += ["--set", f"{key}={value:g}"]
        elif self.sources.data_dir is not None:
            words += ["--data-dir", self.sources.data_dir]
        return [*words, "--seeds", str(self.glue_seeds), *self._device()]

    @property
    def glue_seeds(self) -> int:
        """Five, as in the paper; nano has three."""
        return NANO_GLUE_SEEDS if self.scale == "nano" else 5

    def report_command(self) -> list[str]:
        """The page, and its charts as files."""
        runs = [str(self.folder(*run)) for run in self.runs]
        parts = ["--corpus", str(self.corpus), "--glue", str(self.scores), "--figures", str(self.out / "figures")]
        return ["report", *runs, *parts, "--out", str(self.page)]

    def commands(self) -> list[list[str]]:
        """All of them, in order."""
        first = [self.tokenizer_command()] if self.scale == "nano" else []
        runs = [self.pretrain_command(*run) for run in self.runs]
        return [*first, self.prepare_command(), *runs, self.glue_command(), self.report_command()]

    def identity(self) -> dict[str, Any]:
        """What must be the same for the folder to be gone on with; more seeds and controls may join later.

        As for a run, [runtime] may differ: a micro-batch that proves too large is set to less.
        """
        import platform

        own = {"python": platform.python_version()} if self.scale == "nano" else vars(self.sources)
        deciding = [text for text in self.assignments if text.partition("=")[0].partition(".")[0].strip() != "runtime"]
        return {"scale": self.scale, "set": deciding, **own}

    def _device(self) -> Sequence[str]:
        return [] if self.device is None else ["--device", self.device]


# Courtois et al. (2024), section 4: the first 30 million documents that the filters leave.
PAPERS_DOCUMENTS = 30_000_000
NANO_TASKS = ("cola", "rte")
NANO_GLUE_SEEDS = 3
NANO_PROTOCOL = {"epochs": 5, "learning_rate": 3e-4, "max_length": 64}
