"""`symbert glue-compare`: whether two models differ by more than chance."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import AsJson, print_json, show
from cli.glue import Average

if TYPE_CHECKING:
    from train.glue.compare import Difference
    from train.glue.score import ModelScores

MODEL = "GLUE folder of one model, or FOLDER:MODEL by its name in the table."


def glue_compare(
    first: Annotated[str, typer.Argument(metavar="A", help=MODEL)],
    second: Annotated[str, typer.Argument(metavar="B", help=MODEL)],
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Times that the examples are drawn anew; 0 leaves it out.")
    ] = 2000,
    average: Annotated[
        Average | None,
        typer.Option("--average", help="As in symbert glue; by default that of the folders' tables."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models seed by seed: B - A with paired t, Wilcoxon's and Welch's tests and a bootstrap over examples.

    p-values are two-sided. Holm's correction is over the paired t-tests of the tasks. Where both folders have the same
    noise, the scores on noisy sentences are compared in the same way, below.
    """
    from train.glue.compare import compare_models, compare_noisy, find_model

    one, other = find_model(first), find_model(second)
    differences = compare_models(one, other, resamples=resamples, average=average)
    noisy = compare_noisy(one, other, resamples=resamples, average=average)
    if as_json:
        noise = {"kind": one.noise, "numbers": _numbers(noisy)} if noisy else None
        print_json({"first": one.name, "second": other.name, "numbers": _numbers(differences), "noise": noise})
        return
    show(_markdown(one.name, other.name, differences), end="")
    if noisy:
        show(f"\nOn sentences with noise, {one.noise}:\n")
        show(_markdown(one.name, other.name, noisy), end="")
    elif one.noise != other.noise:
        kinds = ", ".join(f"{model.noise or 'none'} of {model.name}" for model in (one, other))
        show(f"\nOn clean sentences alone: the noise is not the same ({kinds})")


def _numbers(differences: "list[Difference]") -> dict[str, Any]:
    return {entry.number: _document(entry) for entry in differences}


def _markdown(first: str, second: str, differences: "list[Difference]") -> str:
    head = ["", first, second, "difference", "95 % over examples", "paired t", "Holm", "Wilcoxon", "Welch", "seeds"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for entry in differences:
        lines.append(_line(entry.number, entry))
        if entry.without is not None:
            lines.append(_line(f"{entry.number}, without degenerate runs", entry.without))
    notes = [
        f"\n{entry.number}: a model's run is degenerate under seed {', '.join(map(str, entry.degenerate))}\n"
        for entry in differences
        if entry.degenerate and entry.number != "glue"
    ]
    notes += [f"\n{_held(entry.number, entry.over)}\n" for entry in differences if entry.over]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "".join(notes)


def _held(name: str, scores: "ModelScores") -> str:
    from train.glue.tasks import AVERAGES, heading

    held = f"{name}: the average holds {len(scores.averaged)} of {AVERAGES[scores.kind][1]}"
    absent = ", ".join(map(heading, scores.missing))
    return f"{held}; missing in one model or both: {absent}" if absent else held


def _line(name: str, entry: "Difference") -> list[str]:
    interval = "–" if entry.interval is None else f"{100 * entry.interval[0]:+.2f} to {100 * entry.interval[1]:+.2f}"
    tests = (entry.paired, entry.signed_rank, entry.welch)
    paired, signed_rank, welch = ("–" if test is None else _p(test.p_value) for test in tests)
    return [
        name,
        f"{100 * entry.first.mean:.2f}",
        f"{100 * entry.second.mean:.2f}",
        f"{100 * entry.mean:+.2f}",
        interval,
        paired,
        "–" if entry.corrected is None else _p(entry.corrected),
        signed_rank,
        welch,
        str(len(entry.first.seeds)),
    ]


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _document(entry: "Difference") -> dict[str, Any]:
    over = {} if entry.over is None else {"average": entry.over.kind, "missing": list(entry.over.missing)}
    tests = {"paired": entry.paired, "signed_rank": entry.signed_rank, "welch": entry.welch}
    return {
        **over,
        "seeds": list(entry.first.seeds),
        "first": list(entry.first.values),
        "second": list(entry.second.values),
        "difference": entry.mean,
        "interval": None if entry.interval is None else list(entry.interval),
        **{name: None if test is None else vars(test) for name, test in tests.items()},
        "corrected": entry.corrected,
        "degenerate": list(entry.degenerate),
        "without": None if entry.without is None else _document(entry.without),
    }
