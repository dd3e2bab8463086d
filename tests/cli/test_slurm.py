"""The sbatch texts: what they say, and that they do it."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from durable.files import file_sha256
from durable.slurm import Division, Resources, ranges, sbatch_text
from tests.corpora import write_corpus
from tests.oscar_prep.conftest import oscar, tokenizer_folder, write_shard  # noqa: F401 - fixtures
from tests.oscar_prep.test_corpus_engines import corpus
from tests.slurm import Slurm
from tests.train.glue.conftest import CheckpointFactory, checkpoint, glue  # noqa: F401 - fixtures
from tests.train.tiny import tiny_assignments
from train.checkpoint import WEIGHTS, checkpoint_folder

Arguments = Callable[..., list[str]]


@pytest.fixture
def inputs(
    tmp_path: Path,
    oscar: Callable[..., dict[str, Any]],  # noqa: F811
    write_shard: Callable[[Path, list[Any]], Path],  # noqa: F811
) -> Path:
    for part in range(5):
        records = [oscar("the quick brown fox " * (number % 50), 1000 * part + number) for number in range(100)]
        write_shard(tmp_path / f"in/part_{part}.jsonl.zst", records)
    return tmp_path / "in"


@pytest.fixture
def arguments(inputs: Path, tokenizer_folder: Path) -> Arguments:  # noqa: F811
    def make(out: Path) -> list[str]:
        return [
            "prepare", str(inputs), "--out", str(out), "--tokenizer", str(tokenizer_folder), "--sequence-length", "16",
            "--validation-samples", "4", "--validation-share", "0.2", "--quiet", "--no-report",
        ]  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1, 2], "0-2"), ([0, 2, 3, 4, 9], "0,2-4,9"), ([7, 8], "7-8")]
)
def test_numbers_are_written_as_slurm_writes_them(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_the_text_is_a_script_that_bash_accepts_and_holds_what_was_asked_for() -> None:
    division = Division("prepare", ["in put", "--out", "o"], 9, [1, 2, 5], "/work")
    text = sbatch_text(division, Resources(2, 0, "3G", "1:00:00", 4, ("--partition=long",)))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for line in (
        "#SBATCH --array=1-2,5%4", "#SBATCH --cpus-per-task=2", "#SBATCH --mem=3G", "#SBATCH --time=1:00:00",
        "#SBATCH --partition=long", "#SBATCH --chdir=/work", "#SBATCH --requeue", "#SBATCH --signal=USR1@120",
    ):  # fmt: skip
        assert f"{line}\n" in text
    # By itself srun would give each task one core.
    starts = [line for line in text.splitlines() if line.startswith("srun ")]
    assert [line.partition(" symbert ")[0] for line in starts] == 2 * ['srun --cpus-per-task="$SLURM_CPUS_PER_TASK"']
    assert "symbert prepare 'in put' --out o \\\n" in text
    assert '--dependency="afterany:${slices%%;*}"' in text


def test_gpus_are_asked_for_and_used_one_a_cell() -> None:
    text = sbatch_text(Division("glue", ["runs/a"], 3, [0], "/work"), Resources(8, 2))
    assert "#SBATCH --gpus-per-task=2\n" in text
    assert '--workers "2"' in text


@pytest.mark.parametrize("folder", ["/my work", "/a#b", '/the "same"', "/back\\slash", "/it's", "/träume"])
def test_the_folder_is_one_word_of_its_directive_whatever_it_is_called(folder: str) -> None:
    text = sbatch_text(Division("prepare", ["in"], 1, [0], folder), Resources())
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH --chdir")]
    words = [shlex.split(line.removeprefix("#SBATCH "), comments=True) for line in lines]
    assert words == 2 * [[f"--chdir={folder}"]]


@pytest.mark.slow
def test_the_submitted_slices_make_the_same_corpus_though_a_task_is_preempted_twice(
    tmp_path: Path, arguments: Arguments, inputs: Path,
    oscar: Callable[..., dict[str, Any]], write_shard: Callable[[Path, list[Any]], Path],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    records = [oscar("the quick brown fox " * 200, number) for number in range(4000)]
    write_shard(inputs / "part_9.jsonl.zst", records)  # long enough to be caught at it
    assert run(arguments(tmp_path / "local")) == 0
    capsys.readouterr()
    out, slurm = tmp_path / "out", Slurm(tmp_path / "slurm")
    assert run(["slurm", *arguments(out), "--slices", "3"]) == 0
    running = f"{out}/.status/running/*.json"
    result = slurm.submit(capsys.readouterr().out, SHIM_PREEMPT=running)
    assert result.returncode == 0, result.stderr
    codes = slurm.codes()
    assert [code for _, task, code in codes if task == "0"] == [75, 75, 0]
    assert [(task, code) for _, task, code in codes if task != "0"] == [("1", 0), ("2", 0), ("None", 0)]
    assert corpus(out) == corpus(tmp_path / "local")
    assert run(["slurm", *arguments(out)]) == 0
    assert capsys.readouterr() == ("", f"{out} is finished: there is nothing to submit\n")


def pretrain_arguments(corpus: Path, out: Path, *more: str, **changes: object) -> list[str]:
    settings = [word for text in tiny_assignments(**changes) for word in ("--set", text)]
    return ["pretrain", "--data", str(corpus), "--out", str(out), "--operator", "pairwise", "--quiet", *settings, *more]


@pytest.mark.slow
def test_a_submitted_run_of_two_ranks_that_time_runs_out_on_goes_on_as_if_it_had_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, slurm = write_corpus(tmp_path / "corpus"), Slurm(tmp_path / "slurm")
    texts = {}
    for name in ("whole", "parts"):
        words = pretrain_arguments(samples, tmp_path / name, schedule__max_steps=40)
        assert run(["slurm", *words, "--nodes", "2", "--gpus", "0"]) == 0
        texts[name] = capsys.readouterr().out
    caught = f"{tmp_path}/parts/checkpoints/step-*"
    result = slurm.submit(texts["parts"], SHIM_PREEMPT=caught, SHIM_TIMES="1", SHIM_TIME_IS_UP="yes")
    assert result.returncode == 0, result.stderr
    assert slurm.submit(texts["whole"]).returncode == 0
    assert slurm.codes() == [(1, "None", 75), (1, "None", 0), (2, "None", 0)], slurm.log(1, "None")
    hashes = {file_sha256(checkpoint_folder(tmp_path / name, 40) / WEIGHTS) for name in texts}
    assert len(hashes) == 1
    assert run(["slurm", *pretrain_arguments(samples, tmp_path / "parts", schedule__max_steps=40)]) == 0
    assert capsys.readouterr() == ("", f"{tmp_path / 'parts'} is finished: there is nothing to submit\n")


def test_a_run_on_gpus_asks_for_a_task_each_and_names_the_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = pretrain_arguments(write_corpus(tmp_path / "cor pus"), tmp_path / "run")
    more = ["--nodes", "2", "--gpus", "4", "--sbatch=--mem=0"]
    assert run(["slurm", *words, *more, "--script", str(tmp_path / "it.sh")]) == 0
    assert capsys.readouterr().err == f"submit the job: bash {tmp_path}/it.sh\n"
    text = (tmp_path / "it.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for line in (
        "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "#SBATCH --gpus-per-node=4", "#SBATCH --mem=32G",
        "#SBATCH --signal=USR1@300", "#SBATCH --requeue", "#SBATCH --open-mode=append",
    ):  # fmt: skip
        assert f"{line}\n" in text
    assert text.index("--mem=0") > text.index("--mem=32G")  # the last one counts
    command = f"    --gpu-bind=none {shlex.join(['symbert', *words, '--device', 'cuda'])}\n"
    assert command in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--dry-run"], 2, "error: invalid value for '--dry-run'"),
        (["--stop-after-step", "3"], 2, "error: invalid value for '--stop-after-step'"),
        (["--device", "cpu"], 2, "error: invalid value for '--device': cpu does not go with --gpus 1, expected cuda"),
        (["--device", "cuda:1"], 2, "error: invalid value for '--device'"),
        (["--max-steps", "0"], 2, "error: invalid value for '--max-steps'"),
        (["--nodes", "9"], 1, "error: 9 ranks cannot share a batch of 8 samples"),
        (["--set", "model.vocab_size=30522"], 1, "error: "),
        (["--init-from", "/nowhere"], 1, "error: /nowhere does not exist"),
        (["--operator", "nonsense"], 2, "error: invalid value for '--operator'"),
    ],
)
def test_what_every_rank_would_refuse_is_refused_before_the_text_is_printed(
    tmp_path: Path, more: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *pretrain_arguments(write_corpus(tmp_path / "corpus"), tmp_path / "run"), *more]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", [".", "..", "/"])
def test_a_folder_for_the_script_is_refused(tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = pretrain_arguments(write_corpus(tmp_path / "corpus"), tmp_path / "run")
    assert run(["slurm", *arguments, "--script", script]) == 2
    said = f"error: invalid value for '--script': {script} is a folder, expected a file to write to"
    assert capsys.readouterr().err.startswith(said)


def test_a_run_with_other_settings_is_refused_before_the_text_is_printed_but_for_what_the_node_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = pretrain_arguments(write_corpus(tmp_path / "corpus"), out, training__precision='"auto"')
    assert run([*words, "--device", "cpu", "--stop-after-step", "1"]) == 75
    capsys.readouterr()
    assert run(["slurm", *words]) == 0
    assert "#SBATCH --nodes=1\n" in capsys.readouterr().out
    assert run(["slurm", *words, "--set", "optimizer.learning_rate=0.5"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "optimizer.learning_rate: 0.01 → 0.5" in captured.err
    assert "precision" not in captured.err


def test_again_prints_only_what_is_missing(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["slurm", *arguments(out), "--slices", "3"]) == 0
    assert "#SBATCH --array=0-2\n" in capsys.readouterr().out
    assert run([*arguments(out), "--slice", "1/3", "--workers", "1"]) == 0
    assert run(["slurm", *arguments(out), "--slices", "3", "--script", str(tmp_path / "again.sh")]) == 0
    assert "#SBATCH --array=0,2\n" in (tmp_path / "again.sh").read_text()
    assert "2 of 3 slices have something left to do" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--slice", "0/2"], ["--engine", "ray"], ["--workers", "3"]])
def test_what_divides_the_work_otherwise_is_refused(
    tmp_path: Path, arguments: Arguments, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *arguments(tmp_path / "out"), *more]) == 2
    assert more[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--drop-categories", "adutl"], ["--harmful-pp", "9", "3"], ["--drop-warnings", "foo"], ["--ship-files"],
        ["--estimate", "0.5"],
    ],
)  # fmt: skip
def test_what_each_task_would_refuse_is_refused_before_the_text_is_printed(
    tmp_path: Path, arguments: Arguments, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *arguments(tmp_path / "out"), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: invalid value for '{more[0]}': ")
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_a_folder_is_not_opened_where_the_command_stands(
    tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(["slurm", "prepare", str(inputs)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: missing option '--out'\n")
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.parametrize("command", ["prepare", "glue", "pretrain"])
def test_the_hint_to_a_slip_names_the_command_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slurm", command, "--nonsense"]) == 2
    assert capsys.readouterr().err.endswith(f"\nhint: symbert slurm {command} --help\n")


def test_a_directive_without_dashes_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *arguments(tmp_path / "out"), "--sbatch=partition=long"]) == 2
    message, _, hint = capsys.readouterr().err.splitlines()
    assert message.startswith("error: invalid value for '--sbatch': `partition=long` does not begin with -")
    assert hint == "hint: --sbatch=--partition=long"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [["--url-field", "a\nFINISH\nb"], ["--sbatch=--comment=a\nb"], ["--memory", "1G\n"]])
def test_a_line_break_that_would_end_the_text_of_a_job_is_refused(
    tmp_path: Path, arguments: Arguments, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *arguments(tmp_path / "out"), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "holds a line break" in captured.err.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_a_wrong_argument_of_the_command_itself_is_refused_before_anything_is_submitted(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["slurm", *arguments(tmp_path / "out"), "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err
    assert run(["slurm", "prepare", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 1


def glue_arguments(model: Path, data: Path, out: Path) -> list[str]:
    return [
        "glue", str(model), "--data-dir", str(data), "--out", str(out), "--tasks", "rte", "--seeds", "2",
        "--set", "epochs=1", "--device", "cpu", "--quiet",
    ]  # fmt: skip


@pytest.mark.long
def test_the_submitted_slices_train_the_same_cells_though_a_task_is_preempted_twice(
    glue: Path,  # noqa: F811
    checkpoint: CheckpointFactory,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out, slurm = checkpoint(), tmp_path / "out", Slurm(tmp_path / "slurm")
    assert run([*glue_arguments(model, glue, tmp_path / "local"), "--workers", "1"]) == 0
    capsys.readouterr()
    assert run(["slurm", *glue_arguments(model, glue, out)]) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --array=0-1\n" in text
    result = slurm.submit(text, SHIM_PREEMPT=f"{out}/.status/running/*.json")
    assert result.returncode == 0, result.stderr
    assert [code for _, task, code in slurm.codes() if task == "0"] == [75, 75, 0]
    assert scores(out) == scores(tmp_path / "local")
    assert (out / "table.md").read_text() == (tmp_path / "local" / "table.md").read_text()
    assert run(["slurm", *glue_arguments(model, glue, out)]) == 0
    assert "nothing to submit" in capsys.readouterr().err


def scores(out: Path) -> dict[str, object]:
    """Everything of every cell but how long it took."""
    found = {}
    for path in sorted(out.glob("cells/*/*.json")):
        cell = json.loads(path.read_text())
        del cell["timing"]
        found[path.name] = cell
    return found
