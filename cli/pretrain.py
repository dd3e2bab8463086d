"""`symbert pretrain`: a model from a corpus and a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.checkpoint import model_folder
from cli.console import AsJson, Quiet, print_json, progress, say
from cli.values import Device, RecipeAssignments, Size, number, operators
from durable.signals import EXIT_DONE

if TYPE_CHECKING:
    from train.recipe import Recipe
    from train.run import Outcome

Track = Literal["tensorboard"]


def pretrain(
    data: Annotated[Path, typer.Option(help="Corpus folder, made by `symbert prepare`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it goes on.", show_default=False)],
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|NAME,NAME,…",
            help="original, symmetric, pairwise, shared or additive; or one name per layer.",
        ),
    ] = None,
    size: Annotated[Size | None, typer.Option(help="Model size; small unless the recipe says otherwise.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A TOML file, or the name of a shipped recipe.")] = None,
    assignments: RecipeAssignments = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="The schedule's length: schedule.max_steps.")] = None,
    stop_after_step: Annotated[
        int | None, typer.Option(min=1, help="Save after this step and exit with 75; the schedule stays as it is.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(callback=number(least=0), help="Save after so many minutes of this invocation and exit with 75."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of a BERT folder, or of a checkpoint or run that folds into one."),
    ] = None,
    device: Device = None,
    track: Annotated[
        Track | None,
        typer.Option(help="Mirror metrics.jsonl in RUN/tensorboard; needs the extra `tensorboard`."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print what the run will cost; train nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Pre-train a masked language model; the same command again resumes a run that was stopped.

    Precedence: --set, then flags, then the recipe, then the defaults (BERT-small with the schedule of Courtois et
    al., 2024). Exit code 75 or 130: everything is saved, run the same command again.
    """
    from transformers.utils import logging

    from train import pretrain as training
    from train.run import Stop

    chosen = recipe_of(recipe, operator, size, max_steps, assignments)
    logging.disable_progress_bar()
    if init_from is not None:
        init_from = model_folder(init_from)
    if dry_run:
        costs = training.dry_run(data, out, chosen, device=device, init_from=init_from, notice=say)
        _show_costs(costs.facts(), as_json)
        return EXIT_DONE
    stop = Stop(stop_after_step, max_minutes)
    with progress("pretrain", "steps", quiet=quiet) as show:
        outcome = training.pretrain(
            data, out, chosen, device=device, init_from=init_from, stop=stop, track=track, progress=show, notice=say
        )
    if not outcome.first_rank:
        return outcome.exit_code
    if as_json:
        hidden = ("exit_code", "first_rank")
        facts = {name: value for name, value in vars(outcome).items() if name not in hidden}
        print_json({**facts, "run": str(outcome.run)})
    else:
        state = "finished" if outcome.finished else "saved, not finished: run the same command again"
        if outcome.finished and outcome.step < chosen.schedule.max_steps:
            state = f"finished, since its budget of {chosen.schedule.max_minutes:g} minutes is used"
        print(
            f"{outcome.run}: step {outcome.step:,} of {chosen.schedule.max_steps:,}, {state}; evaluation loss "
            f"{outcome.first_evaluation_loss:.3f} before the first step, {outcome.last_evaluation_loss:.3f} at the "
            f"last, accuracy {outcome.last_evaluation_accuracy:.2%}; {outcome.minutes:.3g} minutes{_speed(outcome)}"
        )
    return outcome.exit_code


def recipe_of(
    recipe: str | None, operator: str | None, size: Size | None, max_steps: int | None, assignments: list[str] | None
) -> "Recipe":
    """The recipe that the command's options ask for."""
    from train.recipe import load_recipe

    if operator is not None:
        operators("--operator", operator)
    return load_recipe(
        recipe, operator=operator, size=size and size.value, max_steps=max_steps, assignments=assignments or ()
    )


def _speed(outcome: "Outcome") -> str:
    if outcome.tokens_per_second is None:
        return ""
    return f", {outcome.tokens_per_second:,.0f} tokens/s, MFU {outcome.model_flops_utilisation:.1%}"


def _show_costs(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    minutes = facts["max_minutes"]
    budget = f", or fewer: the run ends after {minutes:g} minutes" if minutes is not None else ""
    done = f", of which {facts['steps_done']:,} are done" if facts["steps_done"] else ""
    for name, value in (
        ("parameters", f"{facts['parameters']:,}"),
        ("FLOPs a token", f"{facts['flops_per_token']:,} (forward and backward)"),
        ("matrix product", f"{facts['matrix_flops_per_second'] / 1e12:.3g} TFLOP/s on this device, just now"),
        ("memory, about", f"{facts['memory_bytes'] / 2**30:.2f} GiB with micro-batches of {facts['micro_batch_size']}"),
        ("steps", f"{facts['steps']:,}{done}{budget}"),
        ("tokens", f"{facts['tokens']:,}"),
        ("passes", f"{facts['passes']:.3g} over {facts['training_samples']:,} training samples"),
        ("evaluation", f"{facts['evaluation_samples']:,} samples, unigram entropy {facts['unigram_entropy']:.3f} nats"),
        ("repeats", facts["repeats"]),
        ("at least", f"{facts['least_seconds'] / 3600:.3g} hours; about twice that at a usual MFU of 50 %"),
    ):
        print(f"{name:<16}{value}")
