import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from durable.errors import DurableError
from durable.failpoints import VARIABLE, failpoint
from durable.files import (
    file_sha256,
    partial_name,
    sweep_partials,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[2]


def test_a_failed_write_leaves_the_old_content_and_no_partial_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="half-way"), whole_file(target) as file:
        file.write(b"new, but ")
        raise RuntimeError("half-way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_check_keeps_the_file_from_appearing(tmp_path: Path) -> None:
    def refuse(partial: Path) -> None:
        assert partial.read_bytes() == b"content"
        raise ValueError("too short")

    with pytest.raises(ValueError, match="too short"), whole_file(tmp_path / "a", check=refuse) as file:
        file.write(b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_before_the_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "disk.before-rename:1:full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "a", "content", name="disk")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The system refuses to write more than 64 kB to a file: a full disk that needs none; a larger file to copy."""
    source = tmp_path_factory.mktemp("sources") / "source"
    source.write_bytes(bytes(1 << 17))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield source
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _write_stream(file: BinaryIO) -> None:
    with pa.ipc.new_stream(file, pa.schema({"a": pa.int64()})) as writer:
        writer.write_batch(pa.record_batch({"a": np.arange(1 << 16)}))


def _write_parquet(file: BinaryIO) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(1 << 16)}), file)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(bytes(1 << 17)),
        lambda file: [file.write(b"line\n") for _ in range(1 << 14)],
        _write_stream,
        _write_parquet,
    ],
    ids=["one write", "a buffer", "a stream of Arrow", "Parquet"],
)
def test_a_file_that_finds_no_room_is_named(tmp_path: Path, write: Callable[[BinaryIO], object]) -> None:
    with pytest.raises(OSError, match="File too large") as caught:  # noqa: SIM117 - the block that names it
        with whole_file(tmp_path / "target") as file, whole_file(tmp_path / "another"):
            write(file)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def _copy_folder(partial: Path, source: Path) -> None:
    shutil.copytree(source.parent, partial / "copy")


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda partial, _: (partial / "a").write_bytes(bytes(1 << 17)), "target"),
        (lambda partial, source: shutil.copyfile(source, partial / "copy"), "target"),
        (_copy_folder, "target"),
        (lambda partial, _: save_file({"a": torch.zeros(1 << 17)}, partial / "weights"), "target"),
    ],
    ids=["a write", "a copy", "a copy of a folder", "safetensors"],
)
def test_in_a_folder_that_finds_no_room_the_target_is_named(
    tmp_path: Path, small_files: Path, write: Callable[[Path, Path], object], named: str
) -> None:
    with pytest.raises(OSError, match="File too large") as caught, whole_folder(tmp_path / "target") as partial:
        write(partial, small_files)
    assert caught.value.errno == errno.EFBIG
    assert Path(caught.value.filename).name == named
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_that_quotes_a_number_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DurableError, match="a is damaged"), whole_folder(tmp_path / "target"):
        raise DurableError("a is damaged: it says (os error 28)")


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("one", "two"):
        with whole_folder(target) as partial:
            (partial / "file").write_text(content)
            assert not (target / "file").exists() or (target / "file").read_text() != content
        assert (target / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("place", "appears"), [("before", False), ("after", True)])
def test_a_kill_around_the_rename_leaves_a_whole_file_or_none(tmp_path: Path, place: str, appears: bool) -> None:
    script = "import sys, pathlib; from durable.files import write_text; write_text(pathlib.Path(sys.argv[1]), 'x' * 9)"
    environment = os.environ | {VARIABLE: f"file.{place}-rename:1:kill"}
    target = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", script, str(target)], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.exists() is appears
    assert len(sweep_partials(tmp_path)) == (0 if appears else 1)
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if appears else [])


def test_sweeping_removes_partial_files_and_folders_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "below" / "kept.json"
    write_json(kept, {"a": 1})
    partial_name(kept).write_text("left")
    folder = partial_name(tmp_path / "folder")
    folder.mkdir()
    partial_name(folder / "inner").write_text("left")
    assert len(sweep_partials(tmp_path)) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_json_refuses_numbers_that_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"name": "é"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"name": "é"}


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("setting", ["name", "name:kill", "name:x:kill", "name:1:explode"])
def test_a_failpoint_that_is_misspelt_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    with pytest.raises(DurableError, match="name:count:action"):
        failpoint("anything")


def test_a_failpoint_acts_at_the_given_passage_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "third-passage:3:full")
    failpoint("third-passage")
    failpoint("another")
    failpoint("third-passage")
    with pytest.raises(OSError, match="third-passage"):
        failpoint("third-passage")
    failpoint("third-passage")
