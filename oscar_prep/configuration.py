"""What decides the content of a corpus: the settings that are part of its identity."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# The eleven UT1 categories that Courtois et al. (2024) drop.
DROPPED_CATEGORIES = (
    "agressif", "adult", "cryptojacking", "dangerous_material", "phishing", "warez", "ddos", "hacking", "malware",
    "mixed_adult", "sect",
)  # fmt: skip
# OSCAR's annotators; `adult` is a warning in 22.01 only, a category since.
QUALITY_WARNINGS = ("tiny", "short_sentences", "header", "footer", "noisy", "adult")


class Configuration(BaseModel):
    """The filters, packing, split and budgets of one corpus; the defaults are those of Courtois et al. (2024).

    The paper leaves open, and we choose: which documents are held out (`validation_share`, `salt`), and that the
    stream of tokens runs through each input file rather than through batches of 1,000 documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sequence_length: int = Field(512, ge=2)
    """Tokens in one sample."""
    validation_samples: int = Field(10_000, ge=0)
    """Samples kept for validation; 0 holds nothing out."""
    validation_share: float = Field(0.01, gt=0, lt=1)
    """Share of the documents, drawn by their record id, that go to the validation stream."""
    salt: int = 0
    """Another number draws other validation documents."""
    drop_categories: tuple[str, ...] = DROPPED_CATEGORIES
    """A document with one of these categories is dropped."""
    harmful_pp: tuple[float, float] = (5.0, 100_000.0)
    """A document is kept if its harmful perplexity lies between these, both excluded."""
    missing_harmful_pp: Literal["drop", "keep"] = "drop"
    """What becomes of a document whose harmful_pp is missing, null, 0 or NaN."""
    drop_warnings: Literal["all"] | tuple[str, ...] = "all"
    """A document with one of these quality warnings is dropped."""
    missing_warnings: Literal["keep"] = "keep"
    """A document without an annotation of its quality is kept."""
    max_documents: int | None = Field(None, ge=1)
    """Stop at this many kept documents, in file order."""
    max_tokens: int | None = Field(None, ge=1)
    """Stop with the kept document that reaches this many tokens, in file order."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.harmful_pp[0] < self.harmful_pp[1]:
            raise ValueError(f"harmful_pp {self.harmful_pp} is empty, expected MIN < MAX")
        unknown = [] if self.drop_warnings == "all" else sorted(set(self.drop_warnings) - set(QUALITY_WARNINGS))
        if unknown:
            raise ValueError(f"drop_warnings: `{unknown[0]}` is not one of {', '.join(QUALITY_WARNINGS)}, all, none")
        return self

    def as_json(self) -> dict[str, Any]:
        """The settings as they stand in the manifest."""
        return self.model_dump(mode="json")
