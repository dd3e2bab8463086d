import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest

from cli.main import run
from durable.files import write_json
from report.build import Inputs, build_report
from report.checkpoints import checkpoints_section
from report.document import Commands, Definitions, Paragraph, Report, Table
from report.errors import ReportError
from report.models import Model
from tests.report.conftest import Study
from train.glue.score import model_scores
from train.metrics import read_metrics


@pytest.fixture(scope="session")
def built(study: Study) -> Report:
    return build_report(Inputs(study.runs, study.corpus, study.glue, None, ["--out", "report.html"]))


def table(report: Report, name: str) -> Table:
    (found,) = [table for table in report.tables() if table.name == name]
    return found


def test_the_page_has_a_section_for_everything_that_was_given(built: Report) -> None:
    assert [section.anchor for section in built.sections] == [
        "corpus", "pre-training", "glue", "checkpoints", "runs", "assumptions", "commands",
    ]  # fmt: skip
    assert len({chart.name for chart in built.charts()}) == len(built.charts()) == 4
    assert len({table.name for table in built.tables()}) == len(built.tables())


def test_the_funnel_is_the_manifests_ledger(study: Study, built: Report) -> None:
    ledger = json.loads((study.corpus / "manifest.json").read_text("utf-8"))["ledger"]
    rows = {row[0]: row[1] for row in table(built, "corpus").rows}
    assert rows == {
        "blocklist": 10, "harmful perplexity": 10, "quality warnings": 10, "broken lines": 0, "kept": 90,
    }  # fmt: skip
    assert "The ledger closes" in table(built, "corpus").notes[0]
    assert table(built, "corpus-tokens").rows[-1][2] == ledger["tokens"]


def test_a_ledger_that_does_not_close_is_said_to(study: Study, tmp_path: Path) -> None:
    manifest = json.loads((study.corpus / "manifest.json").read_text("utf-8"))
    manifest["ledger"]["kept"] -= 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    assert "does NOT close" in table(build_report(Inputs(corpus=tmp_path)), "corpus").notes[0]


def test_runs_of_another_corpus_than_the_one_shown_are_named(study: Study, tmp_path: Path) -> None:
    manifest = json.loads((study.corpus / "manifest.json").read_text("utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"corpus_hash": "0" * 64}), "utf-8")
    first = build_report(Inputs(study.runs[:1], tmp_path)).sections[0].blocks[0]
    assert first == Paragraph("Not trained on this corpus, but on another: original-1.")
    own = build_report(Inputs(study.runs[:1], study.corpus)).sections[0].blocks
    assert not any("another" in block.text for block in own if isinstance(block, Paragraph))


def test_runs_that_differ_in_their_seed_alone_are_one_curve(study: Study, built: Report) -> None:
    found = table(built, "steps-runs-1")
    assert [row[:2] for row in found.rows] == [["original", 2], ["pairwise, S normal", 1], ["pairwise, S scaled", 1]]
    losses = [
        [row["evaluation_loss"] for row in read_metrics(run) if row["kind"] == "evaluation"] for run in study.runs[:2]
    ]
    chart = next(chart for chart in built.charts() if chart.name == "loss-runs-1")
    (curve,) = [series for series in chart.series if series.label == "original"]
    assert curve.y == pytest.approx([(a + b) / 2 for a, b in zip(*losses, strict=True)])
    assert curve.low == tuple(map(min, *losses))
    assert curve.high == tuple(map(max, *losses))


def test_every_run_shows_its_parameters_and_what_sets_it_apart(study: Study, built: Report) -> None:
    from symbert import SymbertConfig, count_parameters

    rows = {row[0]: row for row in table(built, "runs").rows}
    for run_folder in study.runs:
        config = SymbertConfig.from_pretrained(run_folder / "checkpoints" / "step-00000020")
        assert rows[run_folder.name][2] == count_parameters(config)
    settings = table(built, "settings-runs-1")
    keys = ["run", "model.attention_operator", "model.pairwise_init", "training.seed"]
    assert [column.key for column in settings.columns] == keys
    assert ["original-2", "original", "normal", "2"] in [list(row) for row in settings.rows]


def test_scores_are_those_of_the_glue_folder(study: Study, built: Report) -> None:
    models = json.loads((study.glue / "table.json").read_text("utf-8"))["models"]
    for row, model in zip(table(built, "glue").rows, models, strict=True):
        assert (row[0], row[1], row[2]) == (model["name"], model["glue"]["mean"], model["glue"]["standard_deviation"])
    assert any("holds 1 of nine numbers" in note for note in table(built, "glue").notes)
    assert {row[1] for row in table(built, "glue-tests").rows} == {"original-1"}


def test_scores_on_noisy_sentences_compare_with_the_baselines_on_noisy_ones(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.glue, tmp_path / "glue")
    grid = json.loads((folder / "grid.json").read_text("utf-8"))
    noise = {"noise": "typos", "noise_rate": 0.1}
    write_json(folder / "grid.json", {**grid, "protocol": {**grid["protocol"], **noise}})
    for path in folder.glob("cells/*/*.json"):
        record = json.loads(path.read_text("utf-8"))
        write_json(path, {**record, "noise": {key: record[key] for key in ("scores", "predictions")}})
    built = build_report(Inputs(glue=folder))
    assert [(str(row[0]).endswith(", typos 0.1"), row[1]) for row in table(built, "glue-tests").rows] == [
        (False, "original-1"),
        (True, "original-1, typos 0.1"),
        (False, "original-1"),
        (True, "original-1, typos 0.1"),
    ]
    (row,) = table(built, "checkpoints").rows
    assert row[0] == "pairwise-1"


def test_checkpoints_of_one_run_make_a_curve(built: Report) -> None:
    (row,) = table(built, "checkpoints").rows
    assert row[0] == "pairwise-1"
    assert [column.key for column in table(built, "checkpoints").columns][-2:] == ["step_6", "step_20"]


def test_a_curve_of_checkpoints_is_over_what_all_of_them_have_and_says_what_is_left_out() -> None:
    cola, rte = {"matthews_correlation": 0.1}, {"accuracy": 0.7}
    scores = [model_scores({("cola", 1): cola}), model_scores({("cola", 1): cola, ("rte", 1): rte})]
    models = [
        Model(f"{run} {step}", "here", "original", found, run, step)
        for run in ("run (aaaaaaaaaaaa)", "run (bbbbbbbbbbbb)")
        for step, found in zip((6, 20), scores, strict=True)
    ]
    section = checkpoints_section(models, None)
    assert section is not None
    (curve,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [(row[0], *row[-2:]) for row in curve.rows] == [
        ("run (aaaaaaaaaaaa)", 0.1, 0.1),
        ("run (bbbbbbbbbbbb)", 0.1, 0.1),
    ]
    told = "GLUE by checkpoint: the curves hold 1 of nine numbers, those of all checkpoints; left out: rte."
    assert Paragraph(told) in section.blocks


def test_the_commands_repeat_the_numbers(built: Report, glue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = [block for block in built.blocks() if isinstance(block, Commands)]
    prepare, *pretrain, glue_line, itself = map(shlex.split, commands.lines)
    assert "--validation-samples" in prepare
    assert prepare[prepare.index("--sequence-length") + 1] == "32"
    for line in pretrain:
        assert run([*line[1:], "--quiet", "--device", "cpu"]) == 0  # finished: nothing is computed again
    glue_line[glue_line.index("GLUE")] = str(glue)
    assert run([*glue_line[1:], "--device", "cpu"]) == 0
    assert "0 cells trained" in capsys.readouterr().err
    assert glue_line[glue_line.index("--seeds") + 1] == "1,2,"
    assert itself == ["symbert", "report", "--out", "report.html"]


def test_what_the_runs_assumed_is_on_the_page_once(built: Report) -> None:
    titles = [block.title for block in built.blocks() if isinstance(block, Definitions)]
    assert titles == ["Pre-training: all runs", "GLUE"]


def test_a_damaged_or_foreign_folder_is_refused_by_name(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("recipe.toml", "environment.json", "metrics.jsonl"):
        (damaged / name).write_bytes((study.runs[0] / name).read_bytes())
    (damaged / "metrics.jsonl").write_text('{"kind": "evaluation", "step": 0}\n', "utf-8")
    for folder, message in (
        (tmp_path / "absent", "does not exist"),
        (study.corpus, "is no run folder: recipe.toml is missing"),
        (damaged, "metrics.jsonl is damaged"),
    ):
        assert run(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 1
        assert message in capsys.readouterr().err
    assert run(["report", "--out", str(tmp_path / "page.html")]) == 1
    assert "nothing to report on" in capsys.readouterr().err
    assert run(["report", "--corpus", str(study.runs[0]), "--out", str(tmp_path / "page.html")]) == 1
    assert run(["report", "--glue", str(study.runs[0]), "--out", str(tmp_path / "page.html")]) == 1
    assert run(["report", "--published", str(study.corpus), "--out", str(tmp_path / "page.html")]) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_run_that_also_differs_in_something_else_is_said_not_to_compare(study: Study, tmp_path: Path) -> None:
    other = tmp_path / "longer"
    other.mkdir()
    environment = json.loads((study.runs[2] / "environment.json").read_text("utf-8"))
    (other / "environment.json").write_text(json.dumps({**environment, "finished": False}), "utf-8")
    (other / "metrics.jsonl").write_bytes((study.runs[2] / "metrics.jsonl").read_bytes())
    recipe = (study.runs[2] / "recipe.toml").read_text("utf-8").replace("max_steps = 20", "max_steps = 30")
    (other / "recipe.toml").write_text(recipe, "utf-8")
    built = build_report(Inputs((study.runs[0], other)))
    text = json.dumps([vars(block) for block in built.blocks() if type(block).__name__ == "Paragraph"])
    assert "differ in more than their attention: schedule.max_steps" in text
    assert "Not finished: longer: step 20 of 30" in text


def test_every_format_holds_the_same_tables(study: Study, built: Report, tmp_path: Path) -> None:
    for kind, out in (("md", "page.md"), ("json", "page.json"), ("csv", "csv"), ("latex", "latex")):
        assert run(study.arguments(tmp_path / out, "--format", kind)) == 0
    names = {table.name for table in built.tables()}
    assert {path.stem for path in (tmp_path / "csv").glob("[!.]*")} == names
    assert {path.stem for path in (tmp_path / "latex").glob("[!.]*")} == names
    document = json.loads((tmp_path / "page.json").read_text("utf-8"))
    assert document["tables"].keys() == names
    with (tmp_path / "csv" / "glue.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, kept in zip(rows, document["tables"]["glue"]["rows"], strict=True):
        assert float(row["glue"]) == kept["glue"]
    markdown = (tmp_path / "page.md").read_text("utf-8")
    assert all(f"**{table.caption}**" in markdown for table in built.tables())
    latex = (tmp_path / "latex" / "steps-runs-1.tex").read_text("utf-8")
    assert latex.count(r"\\") == 4
    assert "original" in latex


@pytest.mark.slow
def test_what_was_written_is_printed(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study.arguments(tmp_path / "page.md", "--figures", tmp_path / "figures")
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path}/page.md\n{tmp_path}/figures\n"
    assert run([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "written": [f"{tmp_path}/page.md", f"{tmp_path}/figures"],
        "sections": 7,
        "tables": 10,
        "charts": 4,
    }


@pytest.mark.parametrize("kind", ["csv", "latex"])
def test_only_files_of_an_earlier_report_are_replaced(study: Study, tmp_path: Path, kind: str) -> None:
    tables = tmp_path / "tables"
    for _ in range(2):
        assert run(study.arguments(tables, "--format", kind)) == 0
    (tables / ("mine.csv" if kind == "csv" else "main.tex")).write_text("precious")
    before = {path: path.read_bytes() for path in tables.iterdir()}
    assert run(study.arguments(tables, "--format", kind)) == 1
    assert {path: path.read_bytes() for path in tables.iterdir()} == before


@pytest.mark.parametrize(
    "places",
    [
        ("both", "--format", "csv", "--figures", "both"),
        ("tables", "--format", "latex", "--figures", "tables/figures"),
        ("figures/tables", "--format", "latex", "--figures", "figures"),
        ("figures/page.html", "--figures", "figures"),
        ("page.pdf",),
    ],
)
def test_places_that_are_in_each_others_way_are_refused(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(study.arguments(Path(places[0]), *places[1:])) == 1
    assert not list(tmp_path.iterdir())


def test_what_the_report_reads_is_never_written_to(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = study.runs[0] / "metrics.jsonl"
    before = metrics.read_bytes()
    assert run(study.arguments(metrics, "--format", "md")) == 1
    assert f"{metrics} lies in {study.runs[0]}, which the report reads" in capsys.readouterr().err
    assert run(study.arguments(study.corpus / "page.html")) == 1
    assert metrics.read_bytes() == before
    assert not (study.corpus / "page.html").exists()


def test_a_run_that_is_given_twice_is_not_two_seeds(study: Study) -> None:
    again = study.runs[0] / ".." / study.runs[0].name
    with pytest.raises(ReportError, match="is given twice"):
        build_report(Inputs((study.runs[0], again)))


def test_an_unknown_format_and_a_folder_of_other_things_are_refused(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(study.arguments(tmp_path / "page", "--format", "docx")) == 2
    said = capsys.readouterr().err
    assert "'--format'" in said
    assert "'html', 'md', 'csv', 'latex', 'json'" in said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert run(study.arguments(tmp_path / "mine", "--format", "csv")) == 1
    assert "holds other things (thesis.txt)" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(("ends", "named"), [((12, 8), "pairwise"), ((8, 8), "original, pairwise")])
def test_the_first_run_to_leave_its_plateau_is_named(
    study: Study, tmp_path: Path, ends: tuple[int, int], named: str
) -> None:
    folders = []
    for run_folder, left in zip((study.runs[0], study.runs[2]), ends, strict=True):
        folder = tmp_path / run_folder.name
        shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        entropy = json.loads((folder / "environment.json").read_text("utf-8"))["unigram_entropy"]
        for row in rows:
            if row["kind"] == "evaluation":
                row["evaluation_loss"] = entropy + (0.0 if row["step"] < left else -1.0)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        folders.append(folder)
    facts = {fact.label: fact for fact in build_report(Inputs(tuple(folders))).facts}
    found = facts["first off the plateau"]
    assert (found.value, found.note.partition(";")[0]) == ("step 8", named)
