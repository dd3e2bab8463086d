import contextlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.chain import Chain
from cli.main import run
from cli.record import recorded
from cli.reproduce import _open_folder, run_study
from cli.study import CONTROLS, PAPER, RECORD, SCALES, Sources, Study
from cli.study_inputs import Sizes
from cli.study_plan import with_micro_batch
from symbert import OPERATORS
from tests.corpora import write_corpus

FEW = Sizes(modules=120, train_sentences=16, dev_sentences=8)
SHORT = (
    "model.vocab_size=600",
    "schedule.max_steps=6",
    "schedule.warmup_steps=1",
    "evaluation.every=3",
    "evaluation.samples=8",
    "training.batch_size=8",
    "runtime.micro_batch_size=8",
)
SHARDS = ["--input", "shards"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    (folder / "part_1.jsonl").write_text("{}\n", "utf-8")
    return ["--input", str(folder)]


def tiny(out: Path, **others: Any) -> Study:
    return Study("nano", out, **{"assignments": SHORT, "device": "cpu", **others})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("study") / "nano"
    return out, run_study(tiny(out), FEW, Chain(quiet=True), at_once=2)


def work_of(out: Path) -> dict[str, int]:
    """When each shard, weight and score was written."""
    patterns = ("oscar/**/*.zst", "corpus/**/*.arrow", "runs/**/*.safetensors", "scores/cells/**/*.json")
    return {str(path): path.stat().st_mtime_ns for pattern in patterns for path in out.glob(pattern)}


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["reproduce", *arguments, "--dry-run", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.slow
def test_nano_leads_from_documentation_strings_to_a_report(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    names = [f"{name}-seed-1" for name in ("original", "symmetric", "pairwise", "pairwise-scaled")]
    assert {name: found["step"] for name, found in summary["losses"].items()} == dict.fromkeys(names, 6)
    assert [model["name"] for model in summary["glue"]["models"]] == names
    assert summary["glue"]["trained"] == len(names) * 2 * 3
    assert summary["funnel"]["documents"] == summary["funnel"]["kept"] == summary["inputs"]["texts"]
    page = Path(summary["report"]).read_text("utf-8")
    assert "pairwise, S scaled" in page
    assert list((out / "figures").glob("*.svg"))


@pytest.mark.long
def test_a_study_goes_on_where_it_is_and_more_seeds_join_it(done: tuple[Path, dict[str, Any]]) -> None:
    out, _ = done
    before = work_of(out)
    again = run_study(tiny(out, seeds=2), FEW, Chain(quiet=True), at_once=2)
    after = work_of(out)
    assert {path: after[path] for path in before} == before
    assert len(again["losses"]) == 8
    assert again["glue"]["found"] == 24
    assert again["glue"]["trained"] == 24


@pytest.mark.slow
def test_the_plan_counts_the_runs_that_are_finished(
    done: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for assignment in SHORT for word in ("--set", assignment)]
    plan = planned(capsys, "--scale", "nano", "--out", str(done[0]), "--seeds", "3", "--device", "cpu", *settings)
    assert plan["finished"] >= 4
    assert f"{12 - plan['finished']} runs" in plan["stages"][1]["what"]


@pytest.mark.parametrize(
    "scale", [pytest.param(scale, marks=[] if scale == "nano" else pytest.mark.slow) for scale in SCALES]
)
def test_the_plan_of_every_scale_names_its_costs_and_their_basis_and_writes_nothing(
    scale: str, tmp_path: Path, shards: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--scale", scale, "--out", str(tmp_path / "out"), *(shards if scale != "nano" else [])]
    plan = planned(capsys, *where)
    assert [stage["name"] for stage in plan["stages"]] == ["corpus", "pre-training", "GLUE"]
    assert all(stage["basis"] for stage in plan["stages"])
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    if "GPU" in plan["stages"][1]["basis"]:  # of a machine that has none: whose cores do not divide its hours
        assert all(stage["what"].endswith(", 1 at a time") for stage in plan["stages"][1:])
    assert list(tmp_path.iterdir()) == []
    assert run(["reproduce", *where, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in plan["commands"])
    assert "Estimated from" in text


@pytest.mark.slow
def test_seeds_and_controls_multiply_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = planned(capsys, "--scale", "nano", "--out", str(tmp_path))
    all_of_them = planned(capsys, "--scale", "nano", "--out", str(tmp_path), "--seeds", "3", "--controls")
    assert sum("pretrain" in command for command in one["commands"]) == 4
    assert sum("pretrain" in command for command in all_of_them["commands"]) == 3 * (len(PAPER) + len(CONTROLS))
    assert all_of_them["stages"][1]["seconds"] > 3 * one["stages"][1]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_every_command_of_the_plan_is_one(scale: str, shards: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from cli.main import app

    sources = shards if scale != "nano" else []
    plan = planned(capsys, "--scale", scale, "--out", "out", "--controls", "--device", "cpu", *sources)
    root = typer.main.get_command(app)
    for command in plan["commands"]:
        words = shlex.split(command)[1:]
        found: Any = root
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        found.make_context("symbert", words)


def test_with_controls_every_operator_is_trained() -> None:
    study = Study("base", Path("out"), Sources(("shards",)), controls=True)
    assert {variant.operator for variant in study.variants} == set(OPERATORS)
    assert len({study.folder(*run) for run in study.runs}) == len(study.runs)


@pytest.mark.parametrize(("scale", "gain"), [("nano", 32**0.5), ("small", 8.0), ("base", 8.0)])
def test_the_gain_of_the_control_is_the_root_of_the_head_size(scale: str, gain: float) -> None:
    study = Study(scale, Path("out"), Sources(("shards",)), controls=True)
    (control,) = [variant for variant in study.variants if variant.gain_is_root_of_head_size]
    assert study.recipe(control, 2).model.attention_logit_gain == pytest.approx(gain)
    assert study.recipe(control, 2).training.seed == 2


@pytest.mark.parametrize("scale", ["small", "base"])
@pytest.mark.parametrize("variant", PAPER, ids=lambda variant: variant.name)
def test_the_papers_scales_train_the_papers_recipes(scale: str, variant: Any) -> None:
    from train.recipe import load_recipe

    study = Study(scale, Path("out"), Sources(("shards",)))
    assert study.recipe(variant, 1) == load_recipe(f"bert-{scale}-{variant.operator}")


def pretend_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of torch in the place of one."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.device", contextlib.nullcontext)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda _: True)


def test_all_runs_of_a_study_on_a_gpu_have_the_smallest_micro_batch_of_any_and_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([140e9, 24e9, 80e9])  # as if others came and went while three runs were asked for
    pretend_a_gpu(monkeypatch)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (int(next(free)), int(140e9)))
    given = Study("base", tmp_path, Sources(("shards",)), device="cuda")
    study = with_micro_batch(given, None)
    assert study.micro_batch_size == 64
    commands = [study.pretrain_command(*run) for run in study.runs]
    assert all(command[-4:-2] == ["--set", "runtime.micro_batch_size=64"] for command in commands)
    assert study.identity() == given.identity()
    _open_folder(study, FEW)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (int(140e9), int(140e9)))
    assert with_micro_batch(given, recorded(tmp_path, RECORD, given.identity())) == study


def test_a_micro_batch_that_is_given_is_that_of_the_study_also_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_a_gpu(monkeypatch)
    before = Study("base", tmp_path, Sources(("shards",)), device="cuda", micro_batch_size=64)
    _open_folder(before, FEW)
    given = replace(before, assignments=("runtime.micro_batch_size=32",), micro_batch_size=None)
    study = with_micro_batch(given, recorded(tmp_path, RECORD, given.identity()))
    assert study == given
    words = study.pretrain_command(*study.runs[0])
    assert [word for word in words if word.startswith("runtime.")] == ["runtime.micro_batch_size=32"]


def test_on_a_cpu_the_commands_name_no_micro_batch(tmp_path: Path) -> None:
    study = Study("base", tmp_path, Sources(("shards",)), device="cpu")
    assert with_micro_batch(study, None) == study
    assert not any(word.startswith("runtime.") for word in study.pretrain_command(*study.runs[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "tiny"], "tiny is not nano, small or base"),
        (["--scale", "base"], "base needs it: the shards of OSCAR 23.01"),
        (["--scale", "nano", *SHARDS], "nano brings its own corpus"),
        (["--scale", "nano", "--data-dir", "glue"], "nano brings its own corpus"),
        (["--scale", "nano", "--set", "training.seed=3"], "training.seed is what the runs of the study differ in"),
        (["--scale", "nano", "--set", "training={seed=3}"], "training is what the runs of the study differ in"),
        (
            ["--scale", "nano", "--set", "model={pairwise_init='scaled'}"],
            "model is what the runs of the study differ in",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_a_wrong_command_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_study_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = {**tiny(tmp_path).identity(), "scale": "base"}
    (tmp_path / "study.json").write_text(json.dumps({"identity": identity, "inputs": {}}), "utf-8")
    settings = [word for assignment in SHORT for word in ("--set", assignment)]
    assert run(["reproduce", "--scale", "nano", "--out", str(tmp_path), "--quiet", *settings]) == 1
    assert "was begun otherwise: scale: 'base' → 'nano'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"identity": 5}'])
def test_a_damaged_record_of_a_study_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.json").write_text(text, "utf-8")
    assert run(["reproduce", "--scale", "nano", "--out", str(tmp_path), "--dry-run"]) == 1
    assert f"{tmp_path / 'study.json'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["really", "dry run"])
def test_a_folder_of_other_things_is_left_alone(
    dry_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    assert run(["reproduce", "--scale", "nano", "--out", str(tmp_path), "--quiet", *dry_run]) == 1
    assert "holds other things (thesis.tex) and no study.json" in capsys.readouterr().err


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["really", "dry run"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "{0}/absent"], "absent does not exist, expected a file or a folder of shards"),
        (["--input", "{1}", "--tokenizer", "{0}"], "holds no tokenizer.json"),
        (["--input", "{1}", "--tokenizer", "{0}/absent"], "absent is neither a folder nor a tokenizer"),
        (
            ["--input", "{1}", "--tokenizer", "{2}", "--data-dir", "{0}/absent"],
            "absent does not exist, expected a fold",
        ),
        (
            ["--input", "{1}", "--tokenizer", "{2}", "--data-dir", "{0}"],
            "does not exist, expected dev.tsv and train.tsv in it",
        ),
    ],
)
def test_sources_that_are_not_there_are_refused_before_anything_is_written(
    arguments: list[str],
    message: str,
    dry_run: list[str],
    tmp_path: Path,
    shards: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = (tmp_path / "empty", shards[1], write_corpus(tmp_path / "corpus") / "tokenizer")
    places[0].mkdir()
    words = [word.format(*places) for word in arguments]
    assert run(["reproduce", "--scale", "base", "--out", str(tmp_path / "out"), *words, *dry_run]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_seeds_than_anybody_trains_are_a_wrong_command_line(tmp_path: Path) -> None:
    assert run(["reproduce", "--scale", "nano", "--out", str(tmp_path), "--seeds", "100000000", "--dry-run"]) == 2
