import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from durable.errors import UnfinishedError
from durable.files import file_sha256
from durable.settings import read_toml
from durable.signals import StopRequest
from symbert import OPERATORS
from symbert.checkpoint import load_checkpoint
from symbert.export import fold
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments, tiny_recipe
from train.checkpoint import checkpoint_folder
from train.data import TrainingOrder
from train.errors import TrainError
from train.loop import Trainer
from train.metrics import read_metrics
from train.pretrain import dry_run, pretrain
from train.recipe import Recipe, load_recipe
from train.run import Outcome, Stop

ROOT = Path(__file__).parents[2]
CLOCK = {"tokens_per_second", "minutes"}
Train = Callable[..., Outcome]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps in one go."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert pretrain(corpus, out, exact_recipe(), device="cpu").exit_code == 0
    return out


def exact_recipe(**changes: object) -> Recipe:
    """Dropout, accumulation and bf16, in which no sum is associative: resuming must be exact even so."""
    settings = {"training__precision": '"bf16"', "runtime__micro_batch_size": 3} | changes
    return tiny_recipe("pairwise", **settings)


def facts(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what comes of the clock, which no two runs share."""
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_metrics(run)]


def assert_same(run: Path, whole: Path) -> None:
    assert facts(run) == facts(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert file_sha256(checkpoint_folder(run, 20) / name) == file_sha256(checkpoint_folder(whole, 20) / name)


@pytest.mark.parametrize(
    "operator",
    [pytest.param(name, marks=[] if name in {"original", "pairwise"} else pytest.mark.slow) for name in OPERATORS],
)
def test_a_run_lowers_the_evaluation_loss(corpus: Path, tmp_path: Path, operator: str) -> None:
    recipe = tiny_recipe(operator, schedule__max_steps=60)
    outcome = pretrain(corpus, tmp_path / "run", recipe, device="cpu")
    assert outcome.finished
    assert outcome.last_evaluation_loss < outcome.first_evaluation_loss - 0.3


def test_metrics_have_every_step_and_every_evaluation_with_the_documented_keys(whole: Path) -> None:
    rows = read_metrics(whole)
    training = [row for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    assert [row["step"] for row in training] == list(range(1, 21))
    assert [row["step"] for row in evaluations] == [0, 5, 10, 15, 20]
    names = ("step", "tokens", "samples", "loss", "gradient_norm", "learning_rate", "tokens_per_second")
    assert all(list(row) == ["kind", *names] for row in training)
    names = ("step", "tokens", "minutes", "evaluation_loss", "evaluation_standard_error", "evaluation_accuracy")
    assert all(list(row) == ["kind", *names] for row in evaluations)
    assert all(row["tokens"] == row["step"] * 8 * 32 for row in rows)


def test_the_metrics_tell_of_every_step_which_samples_it_saw(whole: Path) -> None:
    order = TrainingOrder(96, seed=1)
    expected = []
    for step in range(20):
        samples, epochs = order.at(step * 8, step * 8 + 8)
        words = [word for pair in zip(epochs.tolist(), samples.tolist(), strict=True) for word in pair]
        expected.append(hashlib.sha256(struct.pack("<16Q", *words)).hexdigest()[:16])
    assert [row["samples"] for row in read_metrics(whole) if row["kind"] == "train"] == expected
    assert len(set(expected)) == 20


def test_the_last_step_is_evaluated_and_saved_even_if_none_is_due(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(schedule__max_steps=7, evaluation__every=100, checkpoint__every=100)
    pretrain(corpus, tmp_path, recipe, device="cpu")
    assert [row["step"] for row in read_metrics(tmp_path) if row["kind"] == "evaluation"] == [0, 7]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000007"]


def test_stopping_and_going_on_is_the_same_as_never_stopping(corpus: Path, tmp_path: Path, whole: Path) -> None:
    recipe = exact_recipe()
    first = pretrain(corpus, tmp_path, recipe, device="cpu", stop=Stop(after_step=7))
    assert (first.exit_code, first.step, first.finished) == (75, 7, False)
    assert [row["step"] for row in facts(tmp_path) if row["kind"] == "train"] == list(range(1, 8))
    second = pretrain(corpus, tmp_path, recipe, device="cpu")
    assert (second.exit_code, second.step, second.finished) == (0, 20, True)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_end_of_the_step(
    corpus: Path, tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    def ask_to_stop(done: float, total: float | None, facts: Any) -> None:  # noqa: ARG001  a ProgressCallback
        if done == 10 and "loss" in facts:
            os.kill(os.getpid(), number)

    outcome = pretrain(corpus, tmp_path, exact_recipe(), device="cpu", progress=ask_to_stop)
    assert (outcome.exit_code, outcome.finished) == (code, False)
    assert checkpoint_folder(tmp_path, outcome.step).is_dir()
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert_same(tmp_path, whole)


def test_a_signal_while_the_corpus_is_checked_ends_the_run_as_unfinished_and_leaves_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "corpus.before-shard:2:term")
    with StopRequest(), pytest.raises(UnfinishedError, match="SIGTERM: .* was still being checked"):
        pretrain(corpus, tmp_path / "run", exact_recipe(), device="cpu")
    assert not (tmp_path / "run").exists()


# Before anything was saved; after rows beyond the newest checkpoint; in the middle of saving step 12; right after it.
KILLS = (
    "pretrain.step:4:kill",
    "pretrain.step:9:kill",
    "checkpoint.before-rename:2:kill",
    "checkpoint.after-rename:2:kill",
)


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", KILLS)
def test_killing_and_going_on_is_the_same_as_never_stopping(
    corpus: Path, tmp_path: Path, whole: Path, failpoint: str
) -> None:
    assignments = tiny_assignments(training__precision='"bf16"', runtime__micro_batch_size=3)
    command = [sys.executable, "-m", "cli", "pretrain", "--data", str(corpus), "--out", str(tmp_path)]
    command += [
        "--operator",
        "pairwise",
        "--device",
        "cpu",
        *(word for text in assignments for word in ("--set", text)),
    ]
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | {"SYMBERT_FAILPOINT": failpoint}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert pretrain(corpus, tmp_path, exact_recipe(), device="cpu").finished
    assert_same(tmp_path, whole)
    assert not list(tmp_path.rglob(".*partial*"))


def test_a_full_disk_while_saving_and_going_on_is_the_same_as_never_stopping(
    corpus: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBERT_FAILPOINT", "checkpoint.before-rename:2:full")
    with pytest.raises(OSError, match="No space left"):
        pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]
    monkeypatch.delenv("SYMBERT_FAILPOINT")
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_time_that_is_up_saves_and_stops(corpus: Path, tmp_path: Path, whole: Path) -> None:
    outcome = pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_minutes=0))
    assert (outcome.exit_code, outcome.step) == (75, 1)
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert_same(tmp_path, whole)


def test_a_used_budget_ends_the_run_with_an_evaluation_and_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(schedule__max_minutes=1e-9, evaluation__every=100, checkpoint__every=100)
    outcome = pretrain(corpus, tmp_path, recipe, device="cpu")
    assert (outcome.exit_code, outcome.finished, outcome.step) == (0, True, 1)
    assert [row["step"] for row in read_metrics(tmp_path) if row["kind"] == "evaluation"] == [0, 1]
    assert checkpoint_folder(tmp_path, 1).is_dir()
    record = json.loads((tmp_path / "environment.json").read_text())
    assert (record["finished"], record["minutes"]) == (True, outcome.minutes)
    before = facts(tmp_path)
    assert pretrain(corpus, tmp_path, recipe, device="cpu").finished
    assert facts(tmp_path) == before


def test_the_budget_is_the_sum_of_all_invocations(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(step=6.0)  # one look at the clock a step, so ten steps a minute
    monkeypatch.setattr("train.run.monotonic", lambda: next(seconds))
    recipe = tiny_recipe(schedule__max_minutes=1.0, evaluation__every=100, checkpoint__every=100)
    whole = pretrain(corpus, tmp_path / "whole", recipe, device="cpu")
    first = pretrain(corpus, tmp_path / "parts", recipe, device="cpu", stop=Stop(after_step=4))
    second = pretrain(corpus, tmp_path / "parts", recipe, device="cpu")
    assert (first.exit_code, first.finished) == (75, False)
    assert (whole.finished, whole.step, whole.minutes) == (True, 10, pytest.approx(1.0))
    assert (second.finished, second.step, second.minutes) == (True, 10, pytest.approx(1.0))
    record = json.loads((tmp_path / "parts" / "environment.json").read_text())
    assert [entry["to_step"] for entry in record["invocations"]] == [4, 10]
    assert [entry["minutes"] for entry in record["invocations"]] == pytest.approx([0.4, 0.6])


def of_a_gpu(*_: object) -> None:
    raise torch.OutOfMemoryError


def of_a_cpu(*_: object) -> None:
    torch.empty(1 << 50)


@pytest.mark.parametrize("exhausted", [of_a_gpu, of_a_cpu])
def test_too_little_memory_proposes_a_micro_batch(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exhausted: Callable[..., None]
) -> None:
    monkeypatch.setattr(Trainer, "step", exhausted)
    with pytest.raises(TrainError, match="step 1: cpu has not the memory for micro-batches of 8 samples") as refusal:
        pretrain(corpus, tmp_path, tiny_recipe(), device="cpu")
    assert "--set runtime.micro_batch_size=4" in refusal.value.__notes__[0]


@pytest.mark.slow
def test_old_checkpoints_go_unless_all_are_to_be_kept(corpus: Path, tmp_path: Path) -> None:
    kept = {}
    for keep in ("recent", "all"):
        recipe = exact_recipe(checkpoint__every=4, checkpoint__keep=keep)
        pretrain(corpus, tmp_path / keep, recipe, device="cpu")
        kept[keep] = sorted(int(path.name[5:]) for path in (tmp_path / keep / "checkpoints").iterdir())
    assert kept == {"recent": [16, 20], "all": [4, 8, 12, 16, 20]}


def test_a_checkpoint_is_saved_by_the_clock_too(corpus: Path, tmp_path: Path) -> None:
    recipe = exact_recipe(schedule__max_steps=5, checkpoint__minutes=1e-9, checkpoint__keep="all")
    pretrain(corpus, tmp_path, recipe, device="cpu")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 5


def test_the_attention_is_measured_at_every_evaluation(whole: Path) -> None:
    rows = [row for row in read_metrics(whole) if row["kind"] == "attention"]
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    for row in rows:
        assert list(row) == ["kind", "step", "tokens", "symmetry", "entropy", "asymmetry"]
        assert len(row["symmetry"]) == len(row["entropy"]) == len(row["asymmetry"]) == 2
        assert all(0 < entropy <= math.log(32) for entropy in row["entropy"])


@pytest.mark.slow
def test_a_symmetric_operator_has_symmetric_weights(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path, tiny_recipe("symmetric"), device="cpu")
    rows = [row for row in read_metrics(tmp_path) if row["kind"] == "attention"]
    assert rows[-1]["symmetry"] == pytest.approx([1.0, 1.0])


def test_going_on_passes_over_a_damaged_checkpoint(corpus: Path, tmp_path: Path, whole: Path) -> None:
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_step=13))
    (checkpoint_folder(tmp_path, 13) / "optimizer.safetensors").write_bytes(b"damage")
    said: list[str] = []
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", notice=said.append)
    assert "step-00000013/optimizer.safetensors is damaged" in said[0]
    assert "step-00000013 is kept as damaged-step-00000013" in said[1]
    assert_same(tmp_path, whole)


def test_a_checkpoint_before_a_damaged_one_can_be_saved(corpus: Path, tmp_path: Path, whole: Path) -> None:
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_step=9))
    (checkpoint_folder(tmp_path, 9) / "config.json").unlink()
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_step=8))
    assert checkpoint_folder(tmp_path, 8).is_dir()
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert_same(tmp_path, whole)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew_in_silence(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_step=2))
    before = facts(tmp_path)
    (checkpoint_folder(tmp_path, 2) / "optimizer.safetensors").unlink()
    with pytest.raises(TrainError, match="has 1 checkpoints, none of which can be resumed") as refusal:
        pretrain(corpus, tmp_path, exact_recipe(), device="cpu")
    assert "to begin anew" in refusal.value.__notes__[0]
    assert facts(tmp_path) == before
    with pytest.raises(TrainError, match="has 1 checkpoints, none of which can be resumed"):
        dry_run(corpus, tmp_path, exact_recipe(), device="cpu", notice=lambda _: None)
    assert checkpoint_folder(tmp_path, 2).is_dir()


def lose_all(path: Path) -> None:
    path.unlink()


def lose_the_first_lines(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[4:]), encoding="utf-8")


def lose_a_line(path: Path) -> None:
    path.write_text(
        "".join(
            line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if '"step": 6,' not in line
        ),
        encoding="utf-8",
    )


def spoil_a_line(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("}", "", 1), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("start", [pretrain, dry_run])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_all, "metrics.jsonl lacks 8 steps, 0 to 7, expected every step from 0 to the checkpoint's 7"),
        (lose_the_first_lines, "metrics.jsonl lacks 3 steps, 0 to 2, expected"),
        (lose_a_line, "metrics.jsonl lacks step 6, expected"),
        (spoil_a_line, "metrics.jsonl, line 1, is damaged"),
    ],
)
def test_a_run_whose_metrics_are_lost_is_not_resumed(
    corpus: Path, tmp_path: Path, start: Callable[..., object], damage: Callable[[Path], None], message: str
) -> None:
    pretrain(corpus, tmp_path, tiny_recipe(), device="cpu", stop=Stop(after_step=7))
    damage(tmp_path / "metrics.jsonl")
    with pytest.raises(TrainError, match=message):
        start(corpus, tmp_path, tiny_recipe(), device="cpu")


@pytest.mark.slow
def test_the_checkpoint_opens_where_symbert_is_not_installed(whole: Path) -> None:
    script = """
import os, sys
sys.path = [entry for entry in sys.path if entry and not os.path.isdir(os.path.join(entry, "symbert"))]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
try:
    import symbert
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"symbert is visible: {symbert.__file__}")
from transformers import AutoModelForMaskedLM, AutoTokenizer
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(model).__name__, len(tokenizer))
"""
    command = [sys.executable, "-I", "-c", script, str(checkpoint_folder(whole, 20))]
    environment = os.environ | {"HF_HOME": str(whole.parent / "hf")}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=whole)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split()[:2] == ["SymbertForMaskedLM", "101"]


@pytest.mark.slow
def test_a_run_needs_none_of_the_libraries_of_the_other_stages(corpus: Path, tmp_path: Path) -> None:
    script = """
import sys
for name in ("datasets", "fasttext", "kenlm", "ray", "can_ada", "scipy", "sklearn", "pandas"):
    sys.modules[name] = None
from cli.main import run
sys.exit(run(sys.argv[1:]))
"""
    settings = [word for text in tiny_assignments() for word in ("--set", text)]
    command = ["pretrain", "--data", str(corpus), "--out", str(tmp_path), "--device", "cpu", *settings]
    shown = subprocess.run([sys.executable, "-c", script, *command], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_a_finished_run_is_left_as_it_is(corpus: Path, whole: Path) -> None:
    before = facts(whole)
    outcome = pretrain(corpus, whole, exact_recipe(), device="cpu")
    assert (outcome.exit_code, outcome.step) == (0, 20)
    assert facts(whole) == before


def test_the_recorded_recipe_repeats_the_run(corpus: Path, tmp_path: Path, whole: Path) -> None:
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["data"] == str(corpus)
    pretrain(Path(environment["data"]), tmp_path, load_recipe(str(whole / "recipe.toml")), device="cpu")
    assert_same(tmp_path, whole)


def test_the_record_names_versions_data_and_every_open_assumption(whole: Path, corpus: Path) -> None:
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["data_manifest_sha256"] == file_sha256(corpus / "manifest.json")
    assert {"pairwise_init", "weight_decay", "shared_diagonals", "precision"} <= environment["assumptions"].keys()
    assert environment["parameters"] > 1000
    assert 3 < environment["unigram_entropy"] < 5
    assert environment["invocations"][0]["versions"].keys() >= {"torch", "transformers"}
    assert environment["identity"]["recipe"] == exact_recipe().identity()
    (invocation,) = environment["invocations"][:1]
    rates = [row["tokens_per_second"] for row in read_metrics(whole) if row["kind"] == "train"]
    assert invocation["tokens_per_second"] == pytest.approx(statistics.median(rates))
    used = invocation["tokens_per_second"] * environment["flops_per_token"] / invocation["matrix_flops_per_second"]
    assert invocation["model_flops_utilisation"] == pytest.approx(used)
    assert read_toml(whole / "recipe.toml")["training"]["precision"] == "bf16"


def test_a_run_may_start_from_the_weights_of_another(corpus: Path, tmp_path: Path, whole: Path) -> None:
    said: list[str] = []
    init_from = checkpoint_folder(whole, 20)
    stop = Stop(after_step=1)
    recipe = tiny_recipe("original")
    outcome = pretrain(corpus, tmp_path, recipe, device="cpu", init_from=init_from, stop=stop, notice=said.append)
    last = [row for row in facts(whole) if row["kind"] == "evaluation"][-1]
    assert outcome.first_evaluation_loss == pytest.approx(last["evaluation_loss"], rel=1e-2)  # fp32 against bf16
    assert said[0].startswith(f"layer 0, original: starts from {init_from}")
    assert pretrain(corpus, tmp_path, recipe, device="cpu", init_from=init_from).finished
    with pytest.raises(TrainError, match="init_from_sha256: "):
        pretrain(corpus, tmp_path, recipe, device="cpu")
    with pytest.raises(TrainError, match=r"holds no model\.safetensors"):
        pretrain(corpus, tmp_path / "other", recipe, device="cpu", init_from=corpus)
    assert not (tmp_path / "other").exists()


UNTRAINED = "pre-training never reached positions 33 to 48: its samples had 32 tokens"


@pytest.mark.parametrize("start", [pretrain, dry_run])
@pytest.mark.parametrize("positions", [32, 48])
def test_positions_that_no_sample_reaches_are_named(
    corpus: Path, tmp_path: Path, start: Callable[..., object], positions: int
) -> None:
    said: list[str] = []
    recipe = exact_recipe(model__max_position_embeddings=positions, schedule__max_steps=4)
    start(corpus, tmp_path, recipe, device="cpu", notice=said.append)
    assert [line.partition(";")[0] for line in said] == ([UNTRAINED] if positions == 48 else [])


def test_a_checkpoint_says_how_many_positions_are_trained_by_the_run_and_by_what_it_started_from(
    corpus: Path, tmp_path: Path, whole: Path
) -> None:
    trained = checkpoint_folder(whole, 20)
    assert json.loads((trained / "config.json").read_text("utf-8"))["trained_positions"] == 32
    bert, unknown = tmp_path / "bert", tmp_path / "unknown"
    fold(load_checkpoint(trained)).save_pretrained(bert)
    shutil.copytree(bert, unknown)
    fields = json.loads((bert / "config.json").read_text("utf-8"))
    assert fields.pop("trained_positions") == 32
    (unknown / "config.json").write_text(json.dumps(fields), "utf-8")
    for start, expected in ((trained, 32), (bert, 32), (unknown, 48)):
        out = tmp_path / start.name / "run"
        recipe = tiny_recipe("original", schedule__max_steps=4)
        said: list[str] = []
        outcome = pretrain(corpus, out, recipe, device="cpu", init_from=start, notice=said.append)
        config = json.loads((checkpoint_folder(outcome.run, 4) / "config.json").read_text("utf-8"))
        assert config["trained_positions"] == expected
        assert any(UNTRAINED in line for line in said) == (expected == 32)


def test_the_runtime_may_change_on_the_way(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path, exact_recipe(), device="cpu", stop=Stop(after_step=3))
    assert pretrain(corpus, tmp_path, exact_recipe(runtime__micro_batch_size=8), device="cpu").finished


def test_other_settings_are_refused_with_the_difference(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path, tiny_recipe(), device="cpu", stop=Stop(after_step=1))
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*"))
    with pytest.raises(TrainError, match=r"other settings:\n  optimizer\.learning_rate: 0\.01 → 0\.02"):
        pretrain(corpus, tmp_path, tiny_recipe(optimizer__learning_rate=0.02), device="cpu")
    after = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*"))
    assert [entry for entry in after if "lock" not in entry[0].name] == [
        entry for entry in before if "lock" not in entry[0].name
    ]


def test_another_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path / "run", tiny_recipe(), device="cpu", stop=Stop(after_step=1))
    other = write_corpus(tmp_path / "other", seed=5)
    with pytest.raises(TrainError, match="corpus_hash: "):
        pretrain(other, tmp_path / "run", tiny_recipe(), device="cpu")


def test_a_folder_of_other_things_is_refused_and_left_alone(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(TrainError, match=r"holds other things \(thesis\.tex\), and no run"):
        pretrain(corpus, tmp_path, tiny_recipe(), device="cpu")
    for start in (pretrain, dry_run):
        with pytest.raises(TrainError, match=r"thesis\.tex is a file, expected a folder to hold the run"):
            start(corpus, tmp_path / "thesis.tex" / "run", tiny_recipe(), device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path, device: str
) -> None:
    with pytest.raises(TrainError, match=f"--device {device} is "):
        pretrain(corpus, tmp_path / "run", tiny_recipe(), device=device)
    assert not (tmp_path / "run").exists()


def test_a_damaged_corpus_is_refused_before_the_first_step(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    shard = corpus / "train" / "data-00001-of-00003.arrow"
    content = bytearray(shard.read_bytes())
    content[-500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(TrainError, match=r"data-00001-of-00003\.arrow is damaged"):
        pretrain(corpus, tmp_path / "run", tiny_recipe(), device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_samples(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(optimizer__learning_rate=1e30, checkpoint__every=2)
    with pytest.raises(TrainError, match=r"step \d+: loss .*Samples \[\d+, ") as refusal:
        pretrain(corpus, tmp_path, recipe, device="cpu")
    assert "checkpoint" in refusal.value.__notes__[0]
    assert all(abs(row.get("loss", 0)) < float("inf") for row in read_metrics(tmp_path))


def test_an_evaluation_that_is_not_finite_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(model__initializer_range=3.4e38)
    with pytest.raises(TrainError, match="step 0: evaluation loss (nan|inf)"):
        pretrain(corpus, tmp_path, recipe, device="cpu", notice=lambda _: None)


def test_a_model_that_no_memory_holds_is_refused_before_its_folder_is_made(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(model__intermediate_size=2**63 - 1)
    with pytest.raises(TrainError, match="has not the memory for a model of these sizes"):
        pretrain(corpus, tmp_path / "run", recipe, device="cpu", notice=lambda _: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("norm", "said"), [(0, "none: optimizer.max_gradient_norm is 0"), (1.0, None)])
def test_the_record_says_that_nothing_is_clipped(corpus: Path, tmp_path: Path, norm: float, said: str | None) -> None:
    recipe = exact_recipe(optimizer__max_gradient_norm=norm)
    pretrain(corpus, tmp_path, recipe, device="cpu", stop=Stop(after_step=1), notice=lambda _: None)
    assumptions = json.loads((tmp_path / "environment.json").read_text("utf-8"))["assumptions"]
    assert assumptions.get("clipping") == said


def test_weights_of_zero_leave_the_measures_that_have_no_number_empty(corpus: Path, tmp_path: Path) -> None:
    recipe = exact_recipe(model__initializer_range=1e-320)
    pretrain(corpus, tmp_path, recipe, device="cpu", stop=Stop(after_step=1), notice=lambda _: None)
    (first, *_) = [row for row in read_metrics(tmp_path) if row["kind"] == "attention"]
    assert first["symmetry"] == [None, None]
