"""`symbert reproduce`: the whole study, from a corpus to the report, at one of three scales."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.chain import Chain
from cli.console import AsJson, Quiet, print_json, say
from cli.study import MICRO_BATCH, RECORD, SCALES, Sources, Study
from cli.study_inputs import Sizes, check_sources

# What tells the models of a study apart is not to be set for all of them.
STUDIED = ("model.attention_operator", "model.pairwise_init", "model.attention_logit_gain", "training.seed")


def reproduce(
    scale: Annotated[
        str, typer.Option(metavar="nano|small|base", help="nano needs two cores; the others are the paper's sizes.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for all that is made; the same command again goes on.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="SHARDS", help="small and base: OSCAR's shards or their folder; may be repeated."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="PATH|HUB_ID", help="small and base: as for prepare (bert-base-uncased).")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="small and base: GLUE's TSV files; without it, from the hub.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=1_000, help="Pre-training runs of each model, with seeds 1 to N.")
    ] = 1,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also other first values of S, a logit gain, shared and additive.")
    ] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one recipe key of every run; may be repeated."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its commands; do nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train every operator on one corpus, fine-tune, score and report; the plan comes first.

    More seeds or --controls join a folder that is there already. Exit code 75 or 130: everything is saved, run the
    same command again.
    """
    sources = _sources(scale, inputs or [], tokenizer, data_dir)
    study = Study(scale, out, sources, seeds, controls, tuple(assignments or ()), device)
    _refuse_studied(study)
    from cli.record import recorded
    from cli.study_plan import make_plan, with_micro_batch

    record = recorded(out, RECORD, study.identity())
    if scale != "nano":
        check_sources(sources, asks_the_hub=not dry_run)

    study = with_micro_batch(study, record)
    plan = make_plan(study)
    if dry_run:
        print_json(plan.as_document()) if as_json else print(plan.as_text())
        return 0
    if not quiet:
        say(plan.as_text().partition("\n\nCommands")[0] + "\n")
    summary = run_study(study, Sizes(), Chain(quiet=quiet), at_once=plan.at_once)
    if as_json:
        print_json({"plan": plan.as_document(), **summary})
    else:
        print(_as_text(study, summary))
    return 0


def run_study(study: Study, sizes: Sizes, chain: Chain, *, at_once: int) -> dict[str, Any]:
    """Everything that is not there yet; returns what each command printed."""
    from durable.locks import folder_lock

    with folder_lock(study.out):
        made = _open_folder(study, sizes)
        if study.scale == "nano" and not Path(study.tokenizer).exists():
            chain.run(*study.tokenizer_command())
        funnel = chain.run(*study.prepare_command())
        losses = chain.run_side_by_side([study.pretrain_command(*run) for run in study.runs], at_once=at_once)
        scores = chain.run(*study.glue_command())
        chain.run(*study.report_command())
    names = [study.folder(*run).name for run in study.runs]
    named = dict(zip(names, losses, strict=True))
    return {"inputs": made, "funnel": funnel, "losses": named, "glue": scores, "report": str(study.page)}


def _sources(scale: str, inputs: list[str], tokenizer: str | None, data_dir: str | None) -> Sources:
    if scale not in SCALES:
        raise typer.BadParameter(f"{scale} is not {', '.join(SCALES[:-1])} or {SCALES[-1]}", param_hint="--scale")
    given = {"--input": inputs, "--tokenizer": tokenizer, "--data-dir": data_dir}
    if scale == "nano":
        needless = [option for option, value in given.items() if value]
        if needless:
            raise typer.BadParameter("nano brings its own corpus, tokenizer and tasks", param_hint=needless[0])
        return Sources()
    if not inputs:
        raise typer.BadParameter(f"{scale} needs it: the shards of OSCAR 23.01", param_hint="--input")
    return Sources(tuple(inputs), tokenizer or Sources.tokenizer, data_dir)


def _refuse_studied(study: Study) -> None:
    for assignment in study.assignments:
        key = assignment.partition("=")[0].strip()
        if any(name == key or name.startswith(f"{key}.") for name in STUDIED):
            raise typer.BadParameter(f"{key} is what the runs of the study differ in", param_hint="--set")


def _open_folder(study: Study, sizes: Sizes) -> dict[str, Any]:
    """Make nano's inputs unless they are there, and write the record; refuses a folder of another study."""
    from cli.record import recorded
    from cli.study_inputs import write_inputs
    from durable.files import write_json

    found = recorded(study.out, RECORD, study.identity())
    if found is None:
        found = {
            "identity": study.identity(),
            "inputs": write_inputs(study.out, sizes) if study.scale == "nano" else {},
        }
        write_json(study.out / RECORD, found)
    if study.micro_batch_size not in (None, found.get(MICRO_BATCH)):
        write_json(study.out / RECORD, {**found, MICRO_BATCH: study.micro_batch_size})
    return dict(found["inputs"])


def _as_text(study: Study, summary: dict[str, Any]) -> str:
    glue = {model["name"]: model["glue"] for model in summary["glue"]["models"]}
    lines = [f"{'run':<28}{'steps':>9}{'last loss':>11}{'GLUE':>8}"]
    for name, run in summary["losses"].items():
        score = f"{100 * glue[name]['mean']:.1f}" if glue.get(name) else "–"
        lines.append(f"{name:<28}{run['step']:>9,}{run['last_evaluation_loss']:>11.3f}{score:>8}")
    return "\n".join([*lines, "", "All of it on one page", f"  {study.page.resolve().as_uri()}"])
