"""Checkpoints of one model under several pre-training seeds, taken together."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from report.models import Model
from train.glue.score import ModelScores, Summary


@dataclass(frozen=True)
class Replicas:
    """One model: a checkpoint of each of its pre-training seeds, or the one checkpoint that there is."""

    models: tuple[Model, ...]

    @property
    def first(self) -> Model:
        return self.models[0]

    @property
    def several(self) -> bool:
        """Whether its scores are over pre-training seeds; if not, they are over the fine-tuning seeds of one."""
        return len(self.models) > 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of pre-training; none where they are not known."""
        return tuple(model.seed for model in self.models if model.seed is not None)

    @property
    def label(self) -> str:
        """`pairwise-seed-1,2` for pairwise-seed-1 and pairwise-seed-2."""
        if not self.several:
            return self.first.label
        stems = {model.label.removesuffix(str(model.seed)) for model in self.models}
        if len(stems) == 1:
            return f"{stems.pop()}{','.join(map(str, self.seeds))}"
        return " + ".join(model.label for model in self.models)

    @property
    def scores(self) -> ModelScores:
        """Of several, the mean over its fine-tuning seeds by pre-training seed; of what all of them have."""
        if not self.several:
            return self.first.scores
        found = [model.scores for model in self.models]
        numbers = [number for number in found[0].numbers if all(number in scores.numbers for scores in found)]
        averages = [scores.average for scores in found]
        alike = len({scores.averaged for scores in found}) == 1
        return ModelScores(
            {number: self._over(scores.numbers[number] for scores in found) for number in numbers},
            self._over(average for average in averages if average is not None) if alike and all(averages) else None,
            found[0].kind,
        )

    def of_seeds(self, seeds: Sequence[int]) -> "Replicas":
        """Some of its checkpoints, by pre-training seed."""
        return Replicas(tuple(model for model in self.models if model.seed in seeds))

    def _over(self, summaries: Iterable[Summary]) -> Summary:
        return Summary(self.seeds, tuple(statistics.fmean(summary.values) for summary in summaries))


def replicas_of(models: Sequence[Model]) -> list[Replicas]:
    """The models, those that differ in their pre-training seed alone together, in the order of their first."""
    groups: dict[tuple[object, ...], list[Model]] = {}
    for place, model in enumerate(models):
        known = model.seed is not None and bool(model.settings)
        groups.setdefault((model.group, model.settings, model.step) if known else (place,), []).append(model)
    found = []
    for group in groups.values():
        distinct = len({model.seed for model in group}) == len(group)
        parts = [sorted(group, key=lambda model: model.seed or 0)] if distinct else [[model] for model in group]
        found += [Replicas(tuple(part)) for part in parts]
    return found
