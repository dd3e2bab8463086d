"""How a model is fine-tuned: the settings that decide a score, and what the paper leaves open."""

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field

from durable.settings import validated, with_assignments
from train.glue.tasks import Task
from train.sections import GradientNorm, Section


class FineTuning(Section):
    """What every fine-tuning has."""

    max_length: int = Field(128, ge=4)
    """Longest input in tokens; a longer pair loses tokens at the end of whichever sentence is longer."""
    epochs: int = Field(5, gt=0)
    """Passes over the training set; the score is that after the last."""
    batch_size: int = Field(16, gt=0)
    """Examples a step; the last batch of an epoch holds what is left."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Share of all steps, rounded up, over which the rate rises linearly; then it falls linearly to 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of everything but biases and LayerNorm."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """Added to the root of AdamW's second moment."""
    max_gradient_norm: GradientNorm = 1.0
    """Gradients are scaled down to this norm; 0 leaves all as they are."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; weights and optimizer are always float32."""
    tf32: bool = True
    """Whether a GPU computes the products of float32 in TF32, which rounds factors to 10 bits; a CPU never does."""

    def record(self) -> dict[str, Any]:
        """The settings that decide a score."""
        return self.model_dump()


class Protocol(FineTuning):
    """Fine-tuning as in Courtois et al. (2024, arXiv 2406.06366, section 4); the same for every task of GLUE."""

    mnli_start: bool = False
    """Whether RTE, MRPC and STS-B start from the model that the same seed fine-tuned on MNLI."""
    noise: Literal["none", "typos", "drop", "swap"] = "none"
    """Damage to validation sentences, on which a model is scored beside the clean ones."""
    noise_rate: float = Field(0.1, gt=0, le=1)
    """Share of the words that the noise hits."""

    def of_task(self, task: Task) -> Self:
        """The same with the settings of the task's own paper, but for those that were given."""
        own = {key: value for key, value in task.settings.items() if key not in self.model_fields_set}
        return self.model_copy(update=own)

    def record(self) -> dict[str, Any]:
        """The settings that decide a score; noise and the start from MNLI only where they are asked for."""
        idle = {"noise", "noise_rate"} if self.noise == "none" else set()
        return self.model_dump(exclude=idle if self.mnli_start else idle | {"mnli_start"})


def resolve_protocol(assignments: Iterable[str] = ()) -> Protocol:
    """The paper's protocol with `key=value` settings. Raises DurableError for an unknown key or a wrong value."""
    return validated(Protocol, with_assignments({}, assignments), what="protocol")


ASSUMPTIONS = {
    "optimizer": "AdamW with betas 0.9 and 0.999, epsilon 1e-8, gradients clipped at norm 1: the paper names none, "
    "these are the defaults of transformers' Trainer, which its authors' code calls",
    "clipping": "to max_gradient_norm; where it is 0 gradients are left as they are",
    "precision": "float32, on a GPU with products in TF32 unless tf32 is false; the paper states none for fine-tuning",
    "dropout": "as in the checkpoint's config.json",
    "head": "classifier, and pooler where the checkpoint has none: weights N(0, initializer_range), biases 0, drawn "
    "from the seed and the parameter's name, so every model starts from the same head",
    "order": "each epoch is a permutation drawn from (seed, epoch), cut into batches; the same for every model",
    "padding": "none to max_length: a batch is padded to its own longest example; on a CPU it is computed in groups "
    "of similar length whose gradients add up to those of the whole batch",
    "truncation": "tokens are taken from the end of the longer sentence; max_length is at most the model's positions",
    "loss": "cross-entropy; STS-B is a regression on its scores from 0 to 5 by mean squared error",
    "score": "after the last epoch, on the whole validation set; no choice among epochs or seeds",
    "qqp": "mean of accuracy and F1, as in the paper's Table 3 (its text says accuracy)",
    "average": "mean of nine numbers, MNLI's two halves counted apart, WNLI left out; its standard deviation is that "
    "of the seeds' averages, n − 1",
    "undefined_correlation": "0 where a model predicts one and the same number for every pair",
    "mnli_start": "off: every task starts from the checkpoint; where asked for, encoder and pooler of RTE, MRPC and "
    "STS-B are those that the same seed fine-tuned on MNLI, and the classifier is new",
    "massive_and_emotion": "not GLUE's: Srinivasagan & Ostermann (2024) fine-tune on Massive over 15 epochs in batches "
    "of 64 at 5e-5, and on Emotion over 10 epochs; open are Emotion's batch and rate (here Massive's), the locale "
    "(en-US), the set that is scored (validation), and length, warm-up and decay (here GLUE's)",
    "noise": "where asked for: words hit with noise_rate, as a function of (seed, split, sentence, row); the recipe of "
    "Kowsher et al. (2024) is not published",
    "stacks": "on a GPU the seeds of a task are trained in lock-step, each with its own head, order, clipping and "
    "dropout: as separate runs but for rounding, and for the dropout, which is drawn from (seeds, step); a cell's "
    "timing holds the seeds that were trained together",
    "threads": "one CPU thread a cell, so that scores do not depend on the number of cores",
}
"""What the paper leaves open, and what symbert does; part of the record of every run."""
