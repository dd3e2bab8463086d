"""A recipe: everything that decides what a pre-training run computes, and how it is put together.

The defaults are BERT-small with the schedule of Courtois et al. (2024, arXiv 2406.06366, section 4); a recipe file
lists what differs. Precedence: --set > flag > recipe > default.
"""

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from transformers.activations import ACT2FN

from durable.errors import with_hint
from durable.settings import read_toml, validated, with_assignments
from symbert import SIZES, SymbertConfig
from train.errors import TrainError
from train.sections import GradientNorm, Section


class ModelSection(Section):
    """The architecture, in SymbertConfig's own terms."""

    attention_operator: str = "original"
    """How tokens see each other: original, symmetric, pairwise, shared, additive; or one name per layer, by commas."""
    pairwise_init: Literal["normal", "scaled", "identity"] = "normal"
    """First values of the pairwise operator's S: N(0, 1) as in the authors' code, N(0, 1/d), or the identity."""
    attention_logit_gain: float = Field(1.0, gt=0)
    """Factor on every score; the root of the head size gives `original` the scale that pairwise starts with."""
    vocab_size: int = Field(30_522, gt=0)
    """Entries of the vocabulary; the corpus must have been tokenized with as many."""
    hidden_size: int = Field(512, gt=0)
    """Width of the hidden states."""
    num_hidden_layers: int = Field(4, gt=0, le=10_000)
    """Layers of the encoder."""
    num_attention_heads: int = Field(8, gt=0)
    """Heads a layer."""
    intermediate_size: int = Field(2048, gt=0)
    """Width of the feed-forward layer."""
    hidden_act: str = "gelu"
    """Activation of the feed-forward layer, by its name in transformers."""
    max_position_embeddings: int = Field(512, gt=0)
    """Positions; no sample may be longer. Default: data.sequence_length."""
    type_vocab_size: int = Field(2, ge=0)
    """Token types, of which pre-training uses type 0 alone; 0 leaves them out of the model."""
    norm_placement: Literal["post", "pre", "sub"] = "post"
    """LayerNorm after each residual sum, before each sub-layer, or before it and before its output projection."""
    feed_forward_bias: bool = True
    """Whether the feed-forward projections have biases."""
    position_embedding: Literal["learned", "sinusoidal"] = "learned"
    """Learned positions, or fixed ones."""
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on embeddings and on the output of each sub-layer."""
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on the attention probabilities."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of first weights; biases start at 0."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Epsilon of LayerNorm."""


class DataSection(Section):
    """What the corpus must look like."""

    sequence_length: int = Field(512, gt=1)
    """Tokens a sample; the corpus must have been packed into rows of this length."""


class MaskingSection(Section):
    """Masked language modelling; special tokens are never masked."""

    probability: float = Field(0.15, gt=0, le=1)
    """Probability that a token is to be predicted."""
    mask_share: float = Field(0.8, ge=0, le=1)
    """Share of the predicted tokens that the model sees as [MASK]."""
    random_share: float = Field(0.1, ge=0, le=1)
    """Share that it sees as a token drawn evenly from the whole vocabulary; the rest it sees as they are."""

    @model_validator(mode="after")
    def shares_fit_into_one(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} exceed 1 together")
        return self


class OptimizerSection(Section):
    """AdamW."""

    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(1e-12, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(0.01, ge=0)
    """On every weight but biases, LayerNorm and the diagonals of the shared operator."""
    decay_pairwise: bool = True
    """Whether the pairwise operator's S decays as well."""
    max_gradient_norm: GradientNorm = 1.0
    """Gradients are clipped to this norm, over all parameters together; 0 clips nothing."""


class ScheduleSection(Section):
    """Linear warm-up from 0, then linear decay to 0."""

    max_steps: int = Field(200_000, gt=0)
    """Optimizer steps of the whole run."""
    warmup_steps: int = Field(10_000, ge=0)
    """Steps until the peak."""
    max_minutes: float | None = Field(None, gt=0)
    """Compute budget in minutes of training, evaluating and saving, summed over all invocations of the run: when it is
    used the run has ended, wherever the schedule stands. Default: none."""

    @model_validator(mode="after")
    def the_peak_is_reached(self) -> Self:
        if self.max_steps < self.warmup_steps:
            error = ValueError(
                f"max_steps {self.max_steps} is below warmup_steps {self.warmup_steps}: the peak would never be reached"
            )
            raise with_hint(error, f"--set schedule.warmup_steps={self.max_steps // 20}, a twentieth as in the paper")
        return self


class TrainingSection(Section):
    """The step."""

    batch_size: int = Field(256, gt=0, le=2**20)
    """Samples a step, over all ranks and micro-batches together."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type. The paper's is fp16; `auto` is bf16 where the device computes it natively, else fp32."""
    seed: int = Field(1, ge=0, lt=2**63)
    """Decides first weights, sample order, masks and dropout."""


class EvaluationSection(Section):
    """Masked loss on held-out samples, whose masks never change. Always before step 1 and after the last step."""

    every: int = Field(250, gt=0)
    """Steps between evaluations."""
    samples: int = Field(10_000, gt=0)
    """At most so many samples, from the first of the validation split."""
    mask_seed: int = Field(0, ge=0, lt=2**63)
    """Decides the masks of the evaluation, whatever training.seed is."""
    attention_samples: int = Field(4, ge=0)
    """Evaluation samples on which entropy and asymmetry of the attention are measured; 0 leaves them out."""


class CheckpointSection(Section):
    """What is kept on disk."""

    every: int = Field(1_000, gt=0)
    """Steps between checkpoints; the last step is always saved."""
    minutes: float = Field(30.0, gt=0)
    """A checkpoint is saved as well when the newest is so old."""
    keep: Literal["recent", "all"] = "recent"
    """`recent`: the newest two, and weights alone at the steps of Figure 3. Minutes and keep are free on resumption."""


class RuntimeSection(Section):
    """What changes rounding and dropout alone: free to differ when a run is resumed."""

    micro_batch_size: int | None = Field(None, gt=0)
    """Samples a forward pass. Default: as the run had before it was resumed; else 8 on a CPU, and on a GPU the power of
    two, or whole share of the batch, that its free memory should hold, halved until it does."""
    compile: bool | None = None
    """Whether to compile the model with torch.compile. Default: on a GPU alone, where it pays."""
    deterministic: bool = False
    """Whether to take kernels that repeat bit for bit, and none chosen by timing. A run on a CPU repeats without it
    unless it is compiled; one on a GPU does not. It is expected to cost a GPU 10 to 18 % of its speed."""


class Recipe(Section):
    """One complete pre-training run."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    masking: MaskingSection = MaskingSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    runtime: RuntimeSection = RuntimeSection()

    @model_validator(mode="after")
    def samples_have_positions(self) -> Self:
        length, positions = self.data.sequence_length, self.model.max_position_embeddings
        if "max_position_embeddings" not in self.model.model_fields_set:
            # Before anybody else has the recipe, which is frozen for them.
            model = self.model.model_copy(update={"max_position_embeddings": length})
            object.__setattr__(self, "model", model)
        elif length > positions:
            raise ValueError(
                f"data.sequence_length {length} does not fit into model.max_position_embeddings {positions}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """The part that must be the same for a run to be resumed: what decides the result."""
        return self.model_dump(mode="json", exclude={"runtime": True, "checkpoint": {"keep", "minutes"}})


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml"))


def load_recipe(
    source: str | None = None,
    *,
    operator: str | None = None,
    size: str | None = None,
    max_steps: int | None = None,
    assignments: Iterable[str] = (),
) -> Recipe:
    """Put a recipe together from a file (or a shipped name), flags and assignments.

    Raises TrainError or DurableError, in words for the user, if a key or value is not one, or if `size` is given
    beside a recipe that sets sizes itself.
    """
    document = _document(source) if source is not None else {}
    model = dict(document.get("model", {}))
    if size is not None:
        model |= _size(size, model, source)
    if operator is not None:
        model["attention_operator"] = operator
    document["model"] = model
    if max_steps is not None:
        document["schedule"] = {**document.get("schedule", {}), "max_steps": max_steps}
    recipe = validated(Recipe, with_assignments(document, assignments), what="recipe")
    symbert_config(recipe.model)
    return recipe


def symbert_config(section: ModelSection) -> SymbertConfig:
    """The model's configuration. Raises SymbertError for an operator that does not exist or sizes that do not fit."""
    if section.hidden_act not in ACT2FN:
        raise TrainError(f"`model.hidden_act` = {section.hidden_act!r}: transformers knows no such activation")
    return SymbertConfig(**section.model_dump())


def _document(source: str) -> dict[str, Any]:
    shipped = recipe_names()
    if source in shipped:
        return read_toml(Path(str(_shipped() / f"{source}.toml")))
    path = Path(source)
    if not path.exists():
        raise with_hint(
            TrainError(f"{source} is neither a recipe file nor the name of a shipped recipe"),
            f"the shipped recipes are {', '.join(shipped)}",
        )
    document = read_toml(path)
    for name, section in document.items():
        if name in Recipe.model_fields and not isinstance(section, dict):
            raise TrainError(f"{source}: `{name}` is a value, expected a section [{name}]")
    return document


def _shipped() -> Any:
    return resources.files("recipes")


def _size(size: str, model: Mapping[str, Any], source: str | None) -> Mapping[str, int]:
    if size not in SIZES:
        raise TrainError(f"--size {size} is not a size, expected {' or '.join(SIZES)}")
    taken = sorted(SIZES[size].keys() & model.keys())
    if taken:
        raise with_hint(
            TrainError(f"--size {size} beside the recipe {source}, which sets {', '.join(taken)} itself"),
            "leave out --size, or change a single value with --set model.KEY=VALUE",
        )
    return SIZES[size]
