"""GLUE scores that others published, to stand below one's own in the table; shipped as published.json.

Courtois et al. (2024, arXiv 2406.06366), Table 3; of Kowsher et al. (2024, arXiv 2412.00359) what the abstract claims.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from statistics import fmean

from train.glue.tasks import AVERAGES, NUMBERS, Groups, heading


@dataclass(frozen=True)
class PublishedRow:
    """A model of another's table; shares of 1."""

    name: str
    source: str
    standard_deviation: float
    """Sample standard deviation over the seeds of the mean of the nine numbers."""
    numbers: Mapping[str, float]

    def average(self, kind: str) -> tuple[float, float | None]:
        """The GLUE score, of the groups that are there, and its standard deviation where that was published."""
        mean = fmean(fmean(self.numbers[number] for number in group) for group in self.averaged(kind))
        return mean, self.standard_deviation if kind == "nine" else None

    def averaged(self, kind: str) -> Groups:
        """The groups of numbers that the GLUE score holds."""
        return tuple(group for group in AVERAGES[kind][0] if set(group) <= self.numbers.keys())


@dataclass(frozen=True)
class Published:
    """All published rows, and a sentence for each source."""

    rows: tuple[PublishedRow, ...]
    sources: tuple[str, ...]

    def notes(self, kind: str) -> list[str]:
        """The sources, and what an average lacks of the published numbers."""
        groups, name = AVERAGES[kind]
        held = {row.averaged(kind) for row in self.rows}
        return [
            *self.sources,
            *(
                f"published: the average holds {len(averaged)} of {name}; "
                f"missing: {', '.join(heading(n) for group in groups if group not in averaged for n in group)}"
                for averaged in sorted(held)
                if len(averaged) < len(groups)
            ),
        ]


def read_published() -> Published:
    """The shipped figures."""
    text = resources.files("train.glue").joinpath("published.json").read_text("utf-8")
    sources = json.loads(text)["sources"]
    rows = tuple(
        PublishedRow(
            name=f"{model['name']} ({source['short']})",
            source=source["citation"],
            standard_deviation=model["glue_std"] / 100,
            numbers={number: model[number] / 100 for number in NUMBERS},
        )
        for source in sources
        for model in source["models"]
    )
    return Published(rows, tuple(f"published, {source['citation']}: {source['about']}" for source in sources))
