"""Which files a corpus is made of."""

import os
from pathlib import Path

import pytest

from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "part_10.jsonl",
        "part_2.jsonl.gz",
        "part_1.jsonl.zst",
        "deep/part_3.jsonl.zstd",
        "README.md",
        "x.txt",
    ):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "corpus"


def test_a_folder_is_searched_in_natural_order_and_the_rest_is_named(folder: Path) -> None:
    found = discover([folder])
    assert [file.name for file in found.files] == [
        "deep/part_3.jsonl.zstd", "part_1.jsonl.zst", "part_2.jsonl.gz", "part_10.jsonl",
    ]  # fmt: skip
    assert [path.name for path in found.ignored] == ["README.md", "x.txt"]


def test_files_keep_the_order_in_which_they_are_given(folder: Path) -> None:
    found = discover([folder / "part_10.jsonl", folder / "part_2.jsonl.gz"])
    assert [file.name for file in found.files] == ["part_10.jsonl", "part_2.jsonl.gz"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part_1.jsonl").touch()
    assert [file.name for file in discover([tmp_path / "a", tmp_path / "b"]).files] == [
        "a/part_1.jsonl", "b/part_1.jsonl",
    ]  # fmt: skip


def test_a_fifo_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(PrepareError, match=r"pipe\.jsonl is not a regular file"):
        discover([tmp_path / "pipe.jsonl"])
    (tmp_path / "part.jsonl").touch()
    found = discover([tmp_path])
    assert [path.name for path in found.ignored] == ["pipe.jsonl"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["absent"], "absent does not exist, expected a file or a folder of shards"),
        (["corpus/x.txt"], "x.txt is not a shard: expected a name that ends in .jsonl, .gz, .zst, .zstd"),
        (["empty"], "empty holds no file named"),
        (["corpus", "corpus/part_10.jsonl"], "part_10.jsonl is given twice"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_input_is_named(tmp_path: Path, given: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError, match=message) as error:
        discover([tmp_path / name for name in given])
    assert len(error.value.__notes__) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("checksum.sha256", "{:a>64}  part_10.jsonl"),
        ("SHA256SUMS", "{:A>64} *./part_10.jsonl"),
        ("checksum.sha384", "{:a>96}  part_10.jsonl"),
    ],
)
def test_checksums_beside_the_input_are_read(folder: Path, name: str, line: str) -> None:
    (folder / name).write_text(line.format("") + "\n")
    checksums = {
        file.name: file.checksum for file in discover([folder / "part_10.jsonl", folder / "part_2.jsonl.gz"]).files
    }
    algorithm = "sha384" if "384" in name else "sha256"
    assert checksums == {
        "part_10.jsonl": (algorithm, "a" * (96 if algorithm == "sha384" else 64)),
        "part_2.jsonl.gz": None,
    }


def test_a_checksum_file_of_another_form_is_an_error_that_names_the_line(folder: Path) -> None:
    (folder / "checksum.sha256").write_text("part_10.jsonl abc\n")
    with pytest.raises(PrepareError, match=r"checksum\.sha256 line 1: expected"):
        discover([folder])
