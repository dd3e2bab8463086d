"""What goes wrong in real corpora and on real machines, and that it ends well or is said."""

import contextlib
import gzip
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import run
from durable.signals import StopRequest
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.record import UnitRecord
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.verify import verify

ROOT = Path(__file__).parents[2]
Process = Callable[..., tuple[UnitRecord, np.ndarray]]
Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those for readers, which quote the command with its --out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and ".status" not in path.parts
        and path.name not in {".symbert.lock", "README.md", "report.html"}
    }


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    for part in range(3):
        records = [oscar("the quick brown fox " * (number % 5), 100 * part + number) for number in range(100)]
        write_shard(tmp_path / f"in/part_{part}.jsonl", [*records, b"{broken"])
    return tmp_path / "in"


@pytest.fixture
def arguments(inputs: Path, tokenizer_folder: Path) -> Callable[[Path], list[str]]:
    """The command line that prepares `inputs`."""

    def make(out: Path) -> list[str]:
        return [
            "prepare", str(inputs), "--out", str(out), "--tokenizer", str(tokenizer_folder), "--workers", "1",
            "--sequence-length", "16", "--validation-samples", "4", "--validation-share", "0.2",
            "--max-bad-share", "0.1", "--quiet",
        ]  # fmt: skip

    return make


def run_apart(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


def plan_for(inputs: Path, out: Path, tokenizer: CorpusTokenizer) -> Plan:
    configuration = Configuration(sequence_length=16, validation_samples=4, validation_share=0.2)
    return Plan(out, tuple(discover([inputs]).files), tokenizer, configuration)


# Documents


def test_a_document_of_no_tokens_is_two_special_tokens(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    record, rows = process(write_shard(tmp_path / "part.jsonl", [oscar(text) for text in ("", " \n", "\v\u200b")] * 3))
    assert record.ledger.tokens == 18
    assert rows.tolist() == [[2, 3] * 4, [2, 3] * 4]


def test_a_document_of_exactly_510_tokens_is_one_sample(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    path = write_shard(tmp_path / "part.jsonl", [oscar("fox " * 510)] * 2)
    record, rows = process(path, sequence_length=512)
    assert rows.shape == (2, 512)
    assert record.ledger.tail == 0
    assert (rows[:, 0] == 2).all()
    assert (rows[:, -1] == 3).all()


def test_a_document_of_a_million_tokens_is_cut_into_rows(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    record, rows = process(write_shard(tmp_path / "part.jsonl", [oscar("fox " * 1_000_000)]), sequence_length=512)
    assert record.ledger.tokens == 1_000_002
    assert rows.shape == (1_000_002 // 512, 512)


def test_a_unit_with_fewer_tokens_than_a_row_is_all_tail(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    record, rows = process(write_shard(tmp_path / "part.jsonl", [oscar()]), sequence_length=512)
    assert rows.shape == (0, 512)
    assert record.ledger.tail == record.ledger.tokens == 6


@pytest.mark.parametrize("content", [b"", b"\n\n \n"])
def test_an_empty_plain_file_is_a_unit_without_documents(tmp_path: Path, process: Process, content: bytes) -> None:
    (tmp_path / "part.jsonl").write_bytes(content)
    record, rows = process(tmp_path / "part.jsonl")
    assert (record.ledger.documents, len(rows)) == (0, 0)


def test_a_flipped_bit_without_a_checksum_is_an_error_or_a_bad_line_or_other_text_but_never_a_crash(
    tmp_path: Path, process: Process, oscar: Oscar, write_shard: Write
) -> None:
    path = write_shard(tmp_path / "part.jsonl.zst", [oscar(f"the fox {number}", number) for number in range(50)])
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with contextlib.suppress(PrepareError):
            process(path)[0].ledger.check(8)


@pytest.mark.slow
def test_a_line_of_300_megabytes_is_put_aside_in_little_memory(tmp_path: Path, tokenizer_folder: Path) -> None:
    good = json.dumps({"content": "the fox " * 20}).encode() + b"\n"
    with gzip.open(tmp_path / "part.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(good + b'{"content": "')
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + good)
    code, megabytes = measured(tmp_path / "part.jsonl.gz", tmp_path / "out", tokenizer_folder)
    assert code == 3
    assert megabytes < 600
    (bad,) = quarantined(tmp_path / "out")
    assert (bad["line"], bad["size"]) == (2, 300 * (1 << 20) + 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a document of punctuation", "a document of Chinese", "Parquet sorted by length"])
def test_inputs_that_are_hard_to_hold_take_less_than_a_gigabyte(
    tmp_path: Path, tokenizer_folder: Path, kind: str
) -> None:
    path = tmp_path / "part.jsonl"
    if kind == "Parquet sorted by length":
        path = tmp_path / "part.parquet"
        texts = [f"the fox {number}" for number in range(50_000)] + ["the quick brown fox " * 270_000] * 40
        # Arrow holds a page at once, and its writer looks at a page's size after so many values.
        pq.write_table(pa.table({"content": texts}), path, write_batch_size=16)
    else:
        text = ".,;:!?" * 5_200_000 if kind == "a document of punctuation" else "日本語" * 3_400_000
        path.write_text(json.dumps({"content": text}, ensure_ascii=False) + "\n", "utf-8")
    code, megabytes = measured(path, tmp_path / "out", tokenizer_folder)
    assert code == 0
    assert megabytes < 1000


def measured(path: Path, out: Path, tokenizer_folder: Path) -> tuple[int, float]:
    """Prepare a corpus of one file; returns the exit code and the peak memory of the worker in MB."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, "prepare", str(path), "--out", str(out), "--tokenizer", str(tokenizer_folder),
         "--sequence-length", "16", "--validation-samples", "0", "--missing-harmful-pp", "keep", "--no-report",
         "--max-bad-share", "0.5", "--workers", "1", "--quiet"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, kilobytes = result.stdout.splitlines()[-1].split()
    return int(code), int(kilobytes) * 1024 / 1e6


MEASURED = """
import multiprocessing, resource, sys
from cli.main import run
code = run(sys.argv[1:])
multiprocessing.forkserver._forkserver._stop()  # its own children's peak is known when it has ended
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def quarantined(corpus: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((corpus / "quarantine").iterdir()) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


# Processes


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer) -> None:
    killed = []

    def kill_first(*_: object) -> None:
        if not killed:
            (worker,) = multiprocessing.active_children()
            killed.append(worker.pid)
            worker.kill()

    running = Running(max_bad_share=0.1, progress=kill_first)
    assert prepare(plan_for(inputs, tmp_path / "out", tokenizer), running)
    assert killed
    prepare(plan_for(inputs, tmp_path / "fresh", tokenizer), Running(max_bad_share=0.1))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_a_file_that_always_kills_its_worker_is_named_and_left_out(
    tmp_path: Path, arguments: Callable[[Path], list[str]], inputs: Path
) -> None:
    for part in range(3):  # quarantine/ is written for files with bad lines only: the others pass
        if part != 1:
            lines = (inputs / f"part_{part}.jsonl").read_bytes().splitlines(keepends=True)
            (inputs / f"part_{part}.jsonl").write_bytes(b"".join(lines[:-1]))
    result = run_apart(arguments(tmp_path / "out"), SYMBERT_FAILPOINT="quarantine.before-rename:1:kill")
    assert result.returncode == 3
    assert "left out, for they kill the process that reads them: part_1.jsonl" in result.stderr
    assert json.loads((tmp_path / "out/manifest.json").read_text())["lost"] == ["part_1.jsonl"]
    assert verify(tmp_path / "out") == []
    assert run_apart(arguments(tmp_path / "out")).returncode == 3  # its bad line is put aside now
    assert json.loads((tmp_path / "out/manifest.json").read_text())["lost"] == []


def test_workers_that_die_as_they_start_are_said_to(tmp_path: Path, arguments: Callable[[Path], list[str]]) -> None:
    # A program from standard input has no file from which a worker could import it again.
    program = f"from cli.main import run\nraise SystemExit(run({arguments(tmp_path / 'out')!r}))"
    result = subprocess.run([sys.executable], input=program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "the worker processes died over 3 input files, 3 times each, and no other holds a document" in error
    assert "part_0.jsonl, part_1.jsonl, part_2.jsonl" in error
    assert "hint: " in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_keeps_what_is_done_and_the_same_command_continues(
    tmp_path: Path, arguments: Callable[[Path], list[str]], number: signal.Signals, code: int
) -> None:
    state = tmp_path / "out/units/configuration.json"

    def interrupt() -> None:
        while not state.exists():
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run(arguments(tmp_path / "out")) == code
    thread.join()
    assert not (tmp_path / "out/manifest.json").exists()
    assert run(arguments(tmp_path / "out")) == 3
    assert run(arguments(tmp_path / "fresh")) == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_run_that_is_stopped_before_it_begins_leaves_a_folder_that_continues(
    tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer
) -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert prepare(plan_for(inputs, tmp_path / "out", tokenizer), Running(1, 0.1, stop=stop)) is None
    assert prepare(plan_for(inputs, tmp_path / "out", tokenizer), Running(1, 0.1))


# A worker that passes a point once for each file gets further than the one before it; a unit has two shards.
WORKERS_FAILPOINTS = [
    f"{product}.{moment}-rename:{count}"
    for product, counts in (("shard", (3, 4)), ("documents", (2, 3)), ("quarantine", (2,)), ("record", (2, 3)))
    for moment in ("before", "after")
    for count in counts
]
PARENTS_FAILPOINTS = [
    f"{product}.{moment}-rename:{count}"
    for product, counts in (("state", (1,)), ("tokenizer", (1,)), ("dataset", (1, 5)), ("manifest", (1,)))
    for moment in ("before", "after")
    for count in counts
]


@pytest.fixture
def fresh(tmp_path: Path, arguments: Callable[[Path], list[str]]) -> dict[str, bytes]:
    assert run(arguments(tmp_path / "fresh")) == 3
    return contents(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", WORKERS_FAILPOINTS)
def test_workers_killed_at_any_point_of_a_commit_change_nothing(
    tmp_path: Path, arguments: Callable[[Path], list[str]], fresh: dict[str, bytes], failpoint: str
) -> None:
    result = run_apart(arguments(tmp_path / "out"), SYMBERT_FAILPOINT=f"{failpoint}:kill")
    while result.returncode == -signal.SIGKILL:  # the parent commits too: the validation split that it cuts
        result = run_apart(arguments(tmp_path / "out"))
    assert result.returncode == 3, result.stderr
    assert contents(tmp_path / "out") == fresh


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", PARENTS_FAILPOINTS)
def test_a_run_killed_at_any_point_of_a_commit_continues(
    tmp_path: Path, arguments: Callable[[Path], list[str]], fresh: dict[str, bytes], failpoint: str
) -> None:
    assert run_apart(arguments(tmp_path / "out"), SYMBERT_FAILPOINT=f"{failpoint}:kill").returncode == -signal.SIGKILL
    assert run_apart(arguments(tmp_path / "out")).returncode == 3
    assert contents(tmp_path / "out") == fresh


@pytest.mark.slow
def test_twenty_runs_killed_at_random_moments_end_in_the_same_bytes(
    tmp_path: Path, arguments: Callable[[Path], list[str]], inputs: Path, oscar: Oscar, write_shard: Write
) -> None:
    for part in range(3, 8):
        records = [oscar("the quick brown fox " * 40, 1000 * part + number) for number in range(3000)]
        write_shard(inputs / f"part_{part}.jsonl.zst", records)
    assert run(arguments(tmp_path / "fresh")) == 3
    draw = np.random.default_rng(0)
    out = tmp_path / "out"
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-m", "cli", *arguments(out)], cwd=ROOT, start_new_session=True)
        time.sleep(draw.uniform(0.3, 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (out / "manifest.json").exists():
            shutil.rmtree(out)
    assert run(arguments(out)) == 3
    assert contents(out) == contents(tmp_path / "fresh")


# Files that vanish


def as_parquet(path: Path) -> Path:
    """The documents of a shard as Parquet, in its place."""
    records = [json.loads(line) for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    table = pa.Table.from_pylist(
        [{"content": record["content"], "metadata": {"harmful_pp": 500.0}} for record in records]
    )
    pq.write_table(table, path.with_suffix(".parquet"))
    path.unlink()
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_file_that_vanishes_while_others_are_read_is_named_when_the_others_are_done(
    tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer, form: str
) -> None:
    gone = inputs / "part_1.jsonl" if form == "jsonl" else as_parquet(inputs / "part_1.jsonl")
    for part in (0, 2):  # larger, and begun before it, as the largest is first
        with (inputs / f"part_{part}.jsonl").open("ab") as file:
            file.write(b" " * 100_000)
    plan = plan_for(inputs, tmp_path / "out", tokenizer)
    elsewhere = tmp_path / gone.name

    def take_away(*_: object) -> None:
        if gone.exists():
            gone.rename(elsewhere)

    with pytest.raises(PrepareError) as caught:
        prepare(plan, Running(max_bad_share=0.1, progress=take_away))
    assert str(caught.value) == f"{gone} cannot be read: No such file or directory"
    assert sorted(path.name for path in (tmp_path / "out/units").glob("data-*")) == [
        "data-00000-of-00003.json", "data-00002-of-00003.json",
    ]  # fmt: skip
    elsewhere.rename(gone)
    assert prepare(plan, Running(max_bad_share=0.1))
    gone.rename(elsewhere)
    with pytest.raises(PrepareError, match="cannot be read: No such file or directory"):
        prepare(plan, Running(max_bad_share=0.1))


def test_of_many_damaged_files_a_few_are_named_and_where_all_are_listed(
    tmp_path: Path, inputs: Path, arguments: Callable[[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for part in range(20):
        (inputs / f"cut_{part}.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-5])
    assert run(arguments(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert error.count("is damaged: it is cut short") == 6
    assert f"hint: and 14 more: `symbert status {tmp_path / 'out'} --json` lists all\n" in error
    assert run(["status", str(tmp_path / "out"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 20
    for part in range(3):
        (inputs / f"part_{part}.jsonl").unlink()
    assert run(arguments(tmp_path / "new")) == 1
    assert "hint: and 14 more\n" in capsys.readouterr().err


# The disk


@pytest.mark.parametrize(
    "product",
    [
        "shard",
        pytest.param("documents", marks=pytest.mark.slow),
        pytest.param("record", marks=pytest.mark.slow),
        pytest.param("manifest", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, arguments: Callable[[Path], list[str]], product: str
) -> None:
    result = run_apart(arguments(tmp_path / "out"), SYMBERT_FAILPOINT=f"{product}.before-rename:1:full")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'out'}/")
    assert result.stderr.endswith(": No space left on device\n")
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").rglob("*.partial-*"))
    assert not (tmp_path / "out/manifest.json").exists()
    assert run(arguments(tmp_path / "out")) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """The beginning of a command line that runs with a file system of 64 kB at tmp_path/disk."""
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs a mount namespace of its own")
    return prefix


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_line(
    tmp_path: Path, inputs: Path, oscar: Oscar, write_shard: Write, arguments: Callable[[Path], list[str]],
    small_disk: list[str],
) -> None:  # fmt: skip
    write_shard(inputs / "part_9.jsonl", [oscar("the quick brown fox " * 1000, number) for number in range(100)])
    command = [*small_disk, sys.executable, "-m", "cli", *arguments(tmp_path / "disk" / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'disk/out'}/")
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


# The settings


def test_another_tokenizer_on_the_same_folder_is_refused(
    tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer, tokenizer_folder: Path
) -> None:
    prepare(plan_for(inputs, tmp_path / "out", tokenizer), Running(max_bad_share=0.1))
    shutil.copytree(tokenizer_folder, tmp_path / "other")
    text = (tmp_path / "other/tokenizer.json").read_text()
    (tmp_path / "other/tokenizer.json").write_text(text.replace("quick", "slow"))
    with pytest.raises(PrepareError, match=r"begun with other settings: tokenizer: '[0-9a-f]{64}' → '[0-9a-f]{64}'"):
        prepare(plan_for(inputs, tmp_path / "out", CorpusTokenizer.find(str(tmp_path / "other"))), Running())


def test_a_checksum_beside_the_input_is_checked_and_recorded(
    tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer
) -> None:
    from durable.files import file_sha256

    sums = "".join(f"{file_sha256(inputs / f'part_{part}.jsonl')}  part_{part}.jsonl\n" for part in range(2))
    (inputs / "checksum.sha256").write_text(sums)
    manifest = prepare(plan_for(inputs, tmp_path / "out", tokenizer), Running(max_bad_share=0.1))
    assert manifest is not None
    assert [unit["input"]["checksum"] for unit in manifest["units"]] == ["sha256", "sha256", None]
    (inputs / "checksum.sha256").write_text(sums.replace("part_1", "part_2"))
    with pytest.raises(PrepareError, match=r"part_2\.jsonl is damaged: its sha256 is not the one in the checksum file"):
        prepare(plan_for(inputs, tmp_path / "other", tokenizer), Running(max_bad_share=0.1))
