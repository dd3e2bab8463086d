"""Corpora from and to object storage: the same samples and the same hash as from and to local files."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from durable.files import file_sha256
from durable.remote import RemotePath
from oscar_prep.configuration import Configuration
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running, prepare
from oscar_prep.record import Budget, UnitRecord
from oscar_prep.tokenize import Encoder
from oscar_prep.tokenizer import CorpusTokenizer
from oscar_prep.unit import UnitProcessor
from oscar_prep.upload import Upload
from oscar_prep.verify import verify
from tests.object_store import KEY, SECRET, Store, start_store

ROOT = Path(__file__).parents[2]
Oscar = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[Any]], Path]


@pytest.fixture
def inputs(tmp_path: Path, oscar: Oscar, write_shard: Write) -> Path:
    """Three files of 100 documents, gzip, zstandard and Parquet, with a checksum file."""
    for part, suffix in ((1, ".jsonl.gz"), (2, ".jsonl.zst")):
        records = [oscar("the quick brown fox " * (number % 7), 100 * part + number) for number in range(100)]
        write_shard(tmp_path / f"in/part_{part}{suffix}", records)
    rows = [{"content": "the lazy dog " * (number % 7), "metadata": {"harmful_pp": 500.0}} for number in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in/part_10.parquet")
    sums = "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted((tmp_path / "in").iterdir()))
    (tmp_path / "in/checksum.sha256").write_text(sums)
    (tmp_path / "in/notes.txt").write_text("not a shard")
    return tmp_path / "in"


@pytest.fixture
def memory(inputs: Path) -> Iterator[RemotePath]:
    """The inputs in this process's memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for path in inputs.iterdir():
        files.pipe_file(f"memory://oscar/en/{path.name}", path.read_bytes())
    yield RemotePath("memory://oscar/en")
    files.store.clear()


def test_a_folder_behind_a_url_holds_the_same_files_in_the_same_order_with_their_checksums(
    inputs: Path, memory: RemotePath
) -> None:
    here, there = discover([inputs]), discover([memory])
    assert [file.name for file in there.files] == ["part_1.jsonl.gz", "part_2.jsonl.zst", "part_10.parquet"]
    assert [(file.name, file.checksum) for file in there.files] == [(file.name, file.checksum) for file in here.files]
    assert [path.name for path in there.ignored] == ["notes.txt"]
    (one,) = discover([memory / "part_2.jsonl.zst"]).files
    assert one == there.files[1]


def test_a_unit_is_the_same_from_any_place(
    tmp_path: Path, inputs: Path, memory: RemotePath, tokenizer: CorpusTokenizer
) -> None:
    configuration = Configuration(sequence_length=16, validation_samples=4, validation_share=0.2)
    made: dict[str, list[UnitRecord]] = {}
    for name, place in (("here", inputs), ("there", memory)):
        plan = Plan(tmp_path / name, tuple(discover([place]).files), tokenizer, configuration)
        processor = UnitProcessor(plan.out, configuration, Encoder.of(tokenizer))
        made[name] = [processor.process(unit, Budget(), lambda *_: None) for unit in plan.units()]
    assert made["here"] == made["there"]
    assert "memory" not in json.dumps([record.as_json() for record in made["there"]])


def test_a_shard_behind_a_url_that_is_not_what_its_checksum_says_is_refused(
    tmp_path: Path, memory: RemotePath, tokenizer: CorpusTokenizer
) -> None:
    (memory / "part_1.jsonl.gz").write_bytes((memory / "part_1.jsonl.gz").read_bytes()[:-5])
    files = discover([memory]).files
    plan = Plan(tmp_path / "out", tuple(files), tokenizer, Configuration(sequence_length=16))
    processor = UnitProcessor(plan.out, plan.configuration, Encoder.of(tokenizer))
    with pytest.raises(PrepareError, match=r"memory://oscar/en/part_1\.jsonl\.gz is damaged: it is cut short"):
        processor.process(plan.units()[0], Budget(), lambda *_: None)


def test_a_tokenizer_is_trained_from_behind_a_url(tmp_path: Path, inputs: Path, memory: RemotePath) -> None:
    from cli.main import run

    arguments = ["--vocabulary-size", "80", "--quiet"]
    for name, place in (("here", str(inputs)), ("there", str(memory))):
        assert run(["tokenizer", "train", place, "--out", str(tmp_path / name), *arguments]) == 0
    assert (tmp_path / "here/tokenizer.json").read_bytes() == (tmp_path / "there/tokenizer.json").read_bytes()


# Uploads, in memory


@pytest.fixture
def plan(tmp_path: Path, inputs: Path, tokenizer: CorpusTokenizer) -> Plan:
    configuration = Configuration(sequence_length=16, validation_samples=4, validation_share=0.2)
    return Plan(tmp_path / "out", tuple(discover([inputs]).files), tokenizer, configuration)


def uploaded(plan: Plan, target: RemotePath) -> tuple[Upload, list[UnitRecord], dict[str, Any]]:
    """A finished corpus, and its upload with every unit copied."""
    manifest = prepare(plan, Running())
    assert manifest is not None
    upload = Upload(plan.out, target)
    assert upload.begin(plan.identity)
    records = [UnitRecord.from_json(unit) for unit in manifest["units"]]
    for unit, record in zip(plan.units(), records, strict=True):
        upload.unit(unit, record)
    return upload, records, manifest


def versions(target: RemotePath) -> dict[str, object]:
    return {file.url: file.state()[1] for file in target.files()}


def test_what_was_copied_already_is_not_copied_again(plan: Plan, memory: RemotePath) -> None:
    upload, records, _ = uploaded(plan, memory.parent / "corpus")
    before = versions(upload.target)
    for unit, record in zip(plan.units(), records, strict=True):
        upload.unit(unit, record)
    assert versions(upload.target) == before
    (upload.target / records[1].train.file).write_bytes(b"cut")
    upload.unit(plan.units()[1], records[1])
    changed = {url for url, version in versions(upload.target).items() if before[url] != version}
    assert changed == {str(upload.target / records[1].train.file)}
    assert (upload.target / records[1].train.file).read_bytes() == (plan.out / records[1].train.file).read_bytes()


def test_a_corpus_behind_a_url_is_verified_where_it_is(plan: Plan, memory: RemotePath) -> None:
    upload, records, manifest = uploaded(plan, memory.parent / "corpus")
    with pytest.raises(PrepareError, match=r"memory://oscar/corpus is a corpus that is not finished"):
        verify(upload.target)
    upload.finish(manifest, plan.units(), records)
    assert verify(upload.target) == []
    shard = upload.target / records[0].train.file
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(bytes(content))
    (upload.target / records[2].documents.file).unlink()
    (upload.target / "train/data-9.arrow").write_bytes(b"")
    assert {(found.file, found.problem) for found in verify(upload.target)} == {
        (records[0].train.file, "its sha256 is not the one in the manifest"),
        (records[2].documents.file, "missing"),
        ("train/data-9.arrow", "not in the manifest"),
    }


def test_units_that_are_no_part_of_the_corpus_are_removed_at_the_end(plan: Plan, memory: RemotePath) -> None:
    upload, records, manifest = uploaded(plan, memory.parent / "corpus")
    upload.finish(manifest, plan.units(), [*records[:2], plan.units()[2]])
    names = {file.relative_to(upload.target) for file in upload.target.files()}
    assert not names & set(plan.units()[2].names.values())
    assert records[1].train.file in names


def test_a_target_of_other_things_or_other_settings_is_refused(plan: Plan, memory: RemotePath) -> None:
    with pytest.raises(PrepareError, match="memory://oscar/en is not empty and holds no corpus, such as"):
        Upload(plan.out, memory).begin(plan.identity)
    upload = Upload(plan.out, memory.parent / "corpus")
    assert upload.begin(plan.identity)
    assert not upload.begin(plan.identity)
    with pytest.raises(PrepareError, match="was begun with other settings: format_version: 1 → 2"):
        upload.begin({**plan.identity, "format_version": 2})
    with pytest.raises(PrepareError, match=r"hf://datasets/me/corpus: a corpus cannot be written to hf://"):
        Upload(plan.out, RemotePath("hf://datasets/me/corpus")).begin(plan.identity)


# The command, with a real S3 server


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    pytest.importorskip("moto", reason="the extra dev")
    pytest.importorskip("s3fs", reason="the extra s3")
    server, stop = start_store()
    yield server
    stop()


@pytest.fixture
def command(store: Store, tmp_path: Path, tokenizer_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `symbert` in a process of its own that reaches the server."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, **store.environment, "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment}
        line = [sys.executable, "-m", "cli", *map(str, arguments)]
        if arguments[0] == "prepare":
            line += ["--tokenizer", str(tokenizer_folder), "--sequence-length", "16", "--workers", "1", "--quiet"]
            line += ["--validation-samples", "4", "--validation-share", "0.2", "--no-report"]
        return subprocess.run(line, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    return run


def put(store: Store, folder: Path, prefix: str) -> None:
    client = store.client()
    for path in folder.iterdir():
        client.upload_file(str(path), "oscar", f"{prefix}/{path.name}")


def corpus_files(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus but the lock, the index and the page that quotes the command."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".symbert.lock", "README.md"}
    }


@pytest.mark.slow
def test_a_corpus_from_and_to_s3_is_the_local_one_byte_for_byte(
    tmp_path: Path, inputs: Path, store: Store, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    put(store, inputs, "en")
    assert command("prepare", inputs, "--out", tmp_path / "local").returncode == 0
    store.failing += [("GET", "part_1.jsonl.gz")] * 2 + [("PUT", ".arrow")] * 2
    result = command("prepare", "s3://oscar/en", "--out", "s3://oscar/corpus")
    assert result.returncode == 0, result.stderr
    assert "corpus s3://oscar/corpus" in result.stdout
    assert store.failing == []
    expected = corpus_files(tmp_path / "local")
    expected["units/configuration.json"] = store.contents("oscar", "corpus/")["units/configuration.json"]
    found = store.contents("oscar", "corpus/")
    readme = found.pop("README.md").decode()
    assert "symbert prepare s3://oscar/en --out s3://oscar/corpus" in readme
    assert found == expected
    for content in (*found.values(), readme.encode(), *corpus_files(tmp_path / "cache").values()):
        assert KEY.encode() not in content
        assert SECRET.encode() not in content
        assert store.endpoint.encode() not in content
    assert command("verify", "s3://oscar/corpus").returncode == 0
    before = len(store.requests)
    assert command("prepare", "s3://oscar/en", "--out", "s3://oscar/corpus").returncode == 0
    moved = [path for method, path in store.requests[before:] if method in {"GET", "PUT"}]
    assert not [path for path in moved if path.endswith((".arrow", ".parquet", ".gz", ".zst"))]


@pytest.mark.slow
def test_an_object_that_was_written_anew_is_read_again_and_refused_if_it_is_another(
    tmp_path: Path, inputs: Path, store: Store, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    put(store, inputs, "changing")
    (inputs / "checksum.sha256").unlink()
    arguments = ["prepare", "s3://oscar/changing/part_1.jsonl.gz", "--out", tmp_path / "out"]
    client = store.client()
    client.delete_object(Bucket="oscar", Key="changing/checksum.sha256")
    assert command(*arguments).returncode == 0
    put(store, inputs, "changing")
    assert command(*arguments).returncode == 0
    client.put_object(
        Bucket="oscar", Key="changing/part_1.jsonl.gz", Body=(inputs / "part_1.jsonl.gz").read_bytes()[:-1] + b"x"
    )
    result = command(*arguments)
    assert result.returncode == 1
    assert "part_1.jsonl.gz has changed since this corpus was begun: sha256" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["upload.before-record:2", "upload.before-manifest:1"])
def test_an_upload_that_was_killed_is_no_corpus_until_the_same_command_has_ended_it(
    tmp_path: Path, inputs: Path, store: Store, command: Callable[..., subprocess.CompletedProcess[str]], failpoint: str
) -> None:
    name = failpoint.replace(":", "-")
    out = f"s3://oscar/{name}"
    command("prepare", inputs, "--out", out, SYMBERT_FAILPOINT=f"{failpoint}:kill")
    if "manifest" in failpoint:
        assert "manifest.json" not in store.contents("oscar", f"{name}/")
        assert command("verify", out).returncode == 1
    assert command("prepare", inputs, "--out", out).returncode == 0
    assert command("verify", out).returncode == 0
    assert command("prepare", inputs, "--out", tmp_path / "local").returncode == 0
    local = json.loads((tmp_path / "local/manifest.json").read_text())
    assert json.loads(store.contents("oscar", f"{name}/")["manifest.json"]) == local


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_what_the_store_refuses_is_one_line_without_credentials_and_leaves_nothing(
    tmp_path: Path,
    inputs: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    refusals = {
        "from a bucket without permission": (["s3://oscar/en", "--out", tmp_path / "out"], "access was denied"),
        "to a bucket without permission": ([inputs, "--out", "s3://oscar/denied"], "access was denied"),
        "a password in the URL": (
            [f"s3://{KEY}:{SECRET}@oscar/en", "--out", tmp_path / "out"], "s3://***@oscar/en holds a user",
        ),
    }  # fmt: skip
    for what, (arguments, message) in refusals.items():
        result = command("prepare", *arguments)
        assert result.returncode == 1, what
        assert result.stderr.startswith("error: "), what
        assert message in result.stderr.splitlines()[0], what
        assert "\nhint: " in result.stderr, what
        assert "Traceback" not in result.stderr, what
        assert KEY not in result.stderr, what
        assert SECRET not in result.stderr, what
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.slow
def test_a_refused_input_leaves_nothing_behind_the_url(
    tmp_path: Path, store: Store, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "text.jsonl").write_text("no JSON\n" * 3)
    result = command("prepare", tmp_path / "text.jsonl", "--out", "s3://oscar/refused")
    assert result.returncode == 1
    assert "3 of 3 lines are no documents" in result.stderr
    assert store.contents("oscar", "refused/") == {}


def test_staging_without_a_url_is_refused(
    tmp_path: Path, inputs: Path, capsys: pytest.CaptureFixture[str], tokenizer_folder: Path
) -> None:
    from cli.main import run

    arguments = ["prepare", str(inputs), "--out", str(tmp_path / "out"), "--staging", str(tmp_path / "staging")]
    assert run([*arguments, "--tokenizer", str(tokenizer_folder)]) == 1
    assert "error: --staging is for an --out that is a URL" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.shared
def test_the_shared_corpus_through_s3_has_the_hash_of_the_local_one(tmp_path: Path, shared: Path, store: Store) -> None:
    put(store, shared / "oscar2301/en_meta", "shared")
    hashes = {}
    for name, source, out in (
        ("local", str(shared / "oscar2301/en_meta"), str(tmp_path / "local")),
        ("s3", "s3://oscar/shared", "s3://oscar/shared-corpus"),
    ):
        line = [sys.executable, "-m", "cli", "prepare", source, "--out", out, "--json", "--quiet", "--no-report"]
        line += ["--tokenizer", str(shared / "bert-base-uncased"), "--validation-samples", "200", "--workers", "2"]
        environment = {**os.environ, **store.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        result = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        hashes[name] = json.loads(result.stdout)["corpus_hash"]
    assert hashes["s3"] == hashes["local"]
    manifest = store.contents("oscar", "shared-corpus/")["manifest.json"]
    assert hashlib.sha256(manifest).hexdigest() == file_sha256(tmp_path / "local/manifest.json")
