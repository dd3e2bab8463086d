"""Which files a corpus is made of."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oscar_prep.errors import PrepareError
from oscar_prep.inputs import discover, natural_key


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


def test_hidden_files_are_no_shards_and_named_before_the_rest(folder: Path) -> None:
    apple = bytes.fromhex("00051607000200004d6163204f53205820202020202020")
    for name in (
        ".DS_Store",
        "._part_1.jsonl.zst",
        "deep/._part_3.jsonl.zstd",
        ".cache/part_4.jsonl",
        "._checksum.sha256",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(apple)
    (folder / "._part_5.jsonl").symlink_to("nothing")
    found = discover([folder])
    assert [file.name for file in found.files] == [
        "deep/part_3.jsonl.zstd", "part_1.jsonl.zst", "part_2.jsonl.gz", "part_10.jsonl",
    ]  # fmt: skip
    assert {path.name for path in found.ignored[:4]} == {
        "._part_1.jsonl.zst", "._part_3.jsonl.zstd", "part_4.jsonl", "._part_5.jsonl",
    }  # fmt: skip
    assert {path.name for path in found.ignored[4:]} == {".DS_Store", "README.md", "x.txt"}
    assert len(discover([folder / "part_1.jsonl.zst"]).files) == 1


def test_a_folder_whose_own_name_is_hidden_is_searched(folder: Path) -> None:
    hidden = folder.rename(folder.with_name(".corpus"))
    assert len(discover([hidden]).files) == 4


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


def test_equal_numbers_have_one_order_whatever_the_folder_lists_first() -> None:
    names = [Path("part_1.jsonl"), Path("part_01.jsonl"), Path("part_001.jsonl")]
    assert len({tuple(sorted(order, key=natural_key)) for order in itertools.permutations(names)}) == 1


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error_though_others_hold_shards(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0)
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    script = f"from pathlib import Path; from oscar_prep.inputs import discover; discover([Path({str(folder)!r})])"
    found = subprocess.run([*as_others, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stderr.endswith(f"PrepareError: {locked}: Permission denied\n")


def test_links_in_a_circle_are_walked_once(folder: Path) -> None:
    for name in ("x", "y", "deep/z"):
        (folder / name).symlink_to(folder, target_is_directory=True)
    assert len(discover([folder]).files) == 4


def test_a_link_to_nothing_that_is_named_like_a_shard_is_an_error(folder: Path) -> None:
    (folder / "part_4.jsonl").symlink_to(folder / "gone.jsonl")
    with pytest.raises(PrepareError, match=r"part_4\.jsonl is a link to nothing"):
        discover([folder])


def test_a_name_that_is_not_utf_8_is_an_error(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl")).touch()
    with pytest.raises(PrepareError, match=r"'\\udcff\.jsonl': the file's name is not UTF-8"):
        discover([folder])


def test_checksums_of_deeper_files_and_escaped_names_are_read(folder: Path) -> None:
    (folder / "deep" / "a\\b.jsonl").touch()
    (folder / "SHA256SUMS").write_text(f"{'a' * 64}  deep/part_3.jsonl.zstd\n\\{'b' * 64}  deep/a\\\\b.jsonl\n")
    (folder / "deep" / "SHA256SUMS").write_text(f"\\{'c' * 64}  a\\\\b.jsonl\n")
    found = {file.name: file.checksum and file.checksum[1][0] for file in discover([folder]).files}
    assert found["deep/part_3.jsonl.zstd"] == "a"
    assert discover([folder]).absent == []
    (folder / "deep" / "part_3.jsonl.zstd").unlink()
    assert discover([folder]).absent == [folder / "deep" / "part_3.jsonl.zstd"]
    assert found["deep/a\\b.jsonl"] == "c"


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
