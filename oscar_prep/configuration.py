"""What decides the content of a corpus: the settings that are part of its identity."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from oscar_prep.layout import CONTENT_FIELD, URL_FIELD, Layout

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

    sequence_length: int = Field(512, ge=3, le=65_536)
    """Tokens in one sample: [CLS], [SEP] and at least one to predict."""
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
    missing_harmful_pp: Literal["drop", "keep", "score"] = "drop"
    """What becomes of a document whose harmful_pp is missing, null, 0 or NaN."""
    rescore: bool = False
    """Judge anew what this run can judge itself, whatever the records say."""
    drop_warnings: Literal["all"] | tuple[str, ...] = "all"
    """A document with one of these quality warnings is dropped."""
    missing_warnings: Literal["keep", "compute"] = "keep"
    """A document without an annotation of its quality has none, or those that OSCAR's rules give it."""
    language: str | None = None
    """Keep documents of this language alone, a code of fastText's such as `en`."""
    min_language_probability: float = Field(0.8, ge=0, le=1)
    """A document must be of the language with at least this probability; 0.8 is OSCAR 23.01's for a sentence."""
    content_field: str = CONTENT_FIELD
    """The field of a record that holds its text."""
    url_field: str = URL_FIELD
    """The field of a record that holds its URL; dots lead into objects."""
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

    @property
    def layout(self) -> Layout:
        """The fields of a record that are read."""
        return Layout(self.content_field, self.url_field, self.language is not None)

    def as_json(self) -> dict[str, Any]:
        """The settings as they stand in the manifest."""
        return self.model_dump(mode="json")
