"""What judges documents beside their own records: UT1 lists, a KenLM model, a fastText model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from blocklists.compile import compile_to
from blocklists.lists import Blocklists
from durable.errors import with_hint
from oscar_prep.annotate import Annotator, ComputedWarnings, HarmfulScores, IdentifiedLanguages, ListedCategories
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.language import LanguageModel, checked_sha256
from oscar_prep.perplexity import HarmfulModel, kenlm_sha256


@dataclass(frozen=True)
class Sources:
    """Files to judge by; None is the records' own word."""

    blocklists: Path | None = None
    """An index, or a folder of lists."""
    kenlm: Path | None = None
    language_model: Path | None = None

    def check(self, configuration: Configuration) -> None:
        """Raises PrepareError if a setting lacks the file that it needs, or a file would be used for nothing."""
        if self.blocklists is not None and not configuration.drop_categories:
            raise PrepareError(f"--blocklists {self.blocklists} would judge nothing: no category is to be dropped")
        scores = configuration.missing_harmful_pp == "score"
        if scores and self.kenlm is None:
            raise with_hint(PrepareError("--missing-harmful-pp score needs a KenLM model"), "--kenlm en.arpa")
        if self.kenlm is not None and not (scores or configuration.rescore):
            raise with_hint(
                PrepareError(f"--kenlm {self.kenlm} would score nothing"),
                "--missing-harmful-pp score for documents without a value, --rescore for all",
            )
        if self.language_model is not None and configuration.language is None:
            raise with_hint(
                PrepareError(f"--language-model {self.language_model} would judge nothing"), "--language en"
            )
        if configuration.rescore and self.kenlm is None and self.language_model is None:
            raise with_hint(
                PrepareError("--rescore has nothing to judge by"),
                "--kenlm FILE, or --language en --language-model FILE",
            )

    def paths(self) -> tuple[Path, ...]:
        """Those that are given."""
        return tuple(filter(None, (self.blocklists, self.kenlm, self.language_model)))

    def moved(self, places: Mapping[Path, Path]) -> "Sources":
        """The same files at other places."""
        return Sources(
            *(path and places.get(path, path) for path in (self.blocklists, self.kenlm, self.language_model))
        )

    def identity(self, configuration: Configuration) -> dict[str, str | None]:
        """The sha256 of each. Raises BlocklistError or PrepareError if one is missing or damaged."""
        lists = None
        if self.blocklists is not None:
            lists = Blocklists.load(self.blocklists, configuration.drop_categories).sha256
        return {
            "blocklists": lists,
            "kenlm": kenlm_sha256(self.kenlm) if self.kenlm else None,
            "language_model": checked_sha256(self.language_model) if self.language_model else None,
        }

    def compiled(self, index: Path, configuration: Configuration) -> "Sources":
        """These sources with a folder of lists compiled to `index`, which all workers map into memory."""
        if self.blocklists is None or not self.blocklists.is_dir():
            return self
        compile_to(self.blocklists, index, configuration.drop_categories)
        return replace(self, blocklists=index)

    def annotators(self, configuration: Configuration) -> list[Annotator]:
        """What fills a document's metadata, each model loaded for this process."""
        annotators: list[Annotator] = []
        if self.blocklists is not None:
            annotators.append(ListedCategories(Blocklists.load(self.blocklists, configuration.drop_categories)))
        if self.kenlm is not None:
            annotators.append(HarmfulScores(HarmfulModel(self.kenlm), configuration.rescore))
        if configuration.missing_warnings == "compute":
            annotators.append(ComputedWarnings(configuration.rescore))
        if self.language_model is not None:
            annotators.append(IdentifiedLanguages(LanguageModel(self.language_model), configuration.rescore))
        return annotators


NO_SOURCES = Sources()
