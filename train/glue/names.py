"""What the models and runs of a GLUE folder are called: as given, with a hash where that does not tell them apart.

Two checkpoints are of one run if its folder is the same, and the model's configuration; equal names are not enough.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

Checkpoints = Mapping[str, Mapping[str, Any]]
"""Facts of grid.json by the sha256 of the weights."""
RunKey = tuple[str, str, str]


def names_of(checkpoints: Checkpoints) -> dict[str, str]:
    """The models' names by weights; with the hash of the weights where two share one, or their runs do."""
    names = Counter(facts["name"] for facts in checkpoints.values())
    shared = _shared(checkpoints)
    return {
        weights: f"{facts['name']} ({weights[:12]})"
        if names[facts["name"]] > 1 or facts.get("run") in shared
        else facts["name"]
        for weights, facts in checkpoints.items()
    }


def runs_of(checkpoints: Checkpoints) -> dict[str, str]:
    """The names of the checkpoints' runs by weights; where two share one with the hash of its last checkpoint."""
    last: dict[RunKey, tuple[int, str]] = {}
    for weights, facts in checkpoints.items():
        last[_key(facts)] = max(last.get(_key(facts), (-1, "")), (facts.get("step", 0), weights))
    shared = _shared(checkpoints)
    runs = {key: f"{key[0]} ({weights[:12]})" if key[0] in shared else key[0] for key, (_, weights) in last.items()}
    return {weights: runs[_key(facts)] for weights, facts in checkpoints.items()}


def run_notes(checkpoints: Checkpoints) -> list[str]:
    """Where each of the runs is that share a name."""
    shared, runs = _shared(checkpoints), runs_of(checkpoints)
    folders = {
        runs[weights]: facts["run_folder"]
        for weights, facts in checkpoints.items()
        if facts.get("run") in shared and facts.get("run_folder")
    }
    return [f"{run} is the run in {folder}" for run, folder in folders.items()]


def _shared(checkpoints: Checkpoints) -> set[str]:
    """Names that several runs have."""
    runs = Counter(run for run, *_ in {_key(facts) for facts in checkpoints.values()})
    return {run for run, count in runs.items() if run and count > 1}


def _key(facts: Mapping[str, Any]) -> RunKey:
    return facts.get("run", ""), facts.get("run_folder", ""), facts.get("model", "")
