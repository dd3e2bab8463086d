"""Files as blocks of lines: whatever the compression, whatever the damage."""

import gzip
import hashlib
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_prep.errors import PrepareError
from oscar_prep.inputs import InputFile
from oscar_prep.read import BLOCK_LINES, START_KEPT, Block, LongLine, ShardReader, StartReader, cut_lines

LINES = b"".join(b'{"content": "line %d"}\n' % number for number in range(2000))


def zstandard(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def read(path: Path, checksum: tuple[str, str] | None = None) -> tuple[bytes, dict[str, object]]:
    with ShardReader(InputFile(path, path.name, checksum), block_bytes=1000) as reader:
        blocks = [block for block in reader.blocks() if isinstance(block, Block)]
        data = b"".join(
            line + b"\n" * (block.is_ended or line is not block.lines[-1]) for block in blocks for line in block.lines
        )
        return data, reader.finish()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.jsonl", LINES),
        ("one.jsonl.zst", zstandard(LINES)),
        ("one.jsonl.zstd", zstandard(LINES)),
        ("two.jsonl.zst", zstandard(LINES[:10_000]) + zstandard(LINES[10_000:])),
        ("one.jsonl.gz", gzip.compress(LINES)),
        ("two.jsonl.gz", gzip.compress(LINES[:10_000]) + gzip.compress(LINES[10_000:])),
        ("zstandard-by-another-name.jsonl.gz", zstandard(LINES)),
        ("gzip-by-another-name.jsonl", gzip.compress(LINES)),
    ],
)
def test_the_same_lines_come_out_and_the_file_is_hashed(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    lines, facts = read(tmp_path / name)
    assert lines == LINES
    assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "checksum": None}


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_compressed_file_cut_anywhere_inside_a_frame_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    whole = zstandard(LINES[:2000]) if suffix == ".zst" else gzip.compress(LINES[:2000])
    path = tmp_path / f"part.jsonl{suffix}"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(
            PrepareError, match=r"part\.jsonl\.(zst|gz) (is damaged|is empty|begins like neither)"
        ) as error:
            read(path)
        assert error.value.__notes__ == ["download the file again and give the same command: what is finished is kept"]


def test_a_file_cut_between_two_frames_is_seen_by_its_checksum_alone(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl.zst"
    whole = zstandard(LINES) + zstandard(LINES)
    path.write_bytes(zstandard(LINES))
    assert read(path)[1]["checksum"] is None
    with pytest.raises(PrepareError, match=r"part\.jsonl\.zst is damaged: its sha256 is not the one"):
        read(path, ("sha256", hashlib.sha256(whole).hexdigest()))


@pytest.mark.parametrize("algorithm", ["sha256", "sha384"])
def test_a_checksum_that_fits_is_recorded(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "part.jsonl"
    path.write_bytes(LINES)
    assert read(path, (algorithm, hashlib.new(algorithm, LINES).hexdigest()))[1]["checksum"] == algorithm


def test_a_flipped_bit_is_an_error_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl.zst"
    data = bytearray(zstandard(LINES))
    checksum = hashlib.sha256(data).hexdigest()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PrepareError, match="is damaged"):
        read(path, ("sha256", checksum))


def test_rubbish_under_a_compressed_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl.zst"
    path.write_bytes(LINES)
    with pytest.raises(PrepareError, match="begins like neither zstandard nor gzip, expected compressed JSON lines"):
        read(path)


def frame_with_window(data: bytes, log: int) -> bytes:
    """A zstandard frame that asks for a window of 2^log bytes, such as `zstd --long` writes; one raw block."""
    assert len(data) < 1 << 17
    block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([0, (log - 10) << 3]) + block + data


@pytest.mark.parametrize("reader", [lambda path: read(path)[0], lambda path: [*StartReader(path, 0.5).blocks()]])
def test_a_window_that_is_not_read_is_named_with_the_command_that_recompresses(
    tmp_path: Path, reader: Callable[[Path], object]
) -> None:
    path = tmp_path / "a part.jsonl.zst"
    path.write_bytes(frame_with_window(LINES, 27))
    assert read(path)[0] == LINES
    path.write_bytes(frame_with_window(LINES, 31))
    with pytest.raises(PrepareError, match="a part.jsonl.zst is compressed with a zstandard window of more") as error:
        reader(path)
    (hint,) = error.value.__notes__
    command = hint.partition(", ")[0]
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed, so that the hint's command cannot be tried")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert read(tmp_path / "NEW.jsonl.zst")[0] == LINES


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 12), st.booleans())
def test_lines_are_cut_alike_whatever_the_blocks(lengths: list[int], block_bytes: int, final_newline: bool) -> None:
    longest = 12
    lines = [bytes(97 + (7 * index + place) % 26 for place in range(length)) for index, length in enumerate(lengths)]
    data = b"\n".join(lines) + (b"\n" if final_newline and lines else b"")
    expected = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
    found: dict[int, bytes] = {}
    for block in cut_lines(io.BytesIO(data), block_bytes, longest):
        if isinstance(block, LongLine):
            assert block.size == len(expected[block.line - 1]) > longest
            assert block.start == expected[block.line - 1][:START_KEPT]
            continue
        assert block.is_ended or (block.first_line + len(block.lines) > len(expected) and not data.endswith(b"\n"))
        found |= dict(enumerate(block.lines, block.first_line))
    assert found == {number: line for number, line in enumerate(expected, start=1) if len(line) <= longest}


def test_a_file_of_nothing_but_short_lines_comes_in_small_blocks() -> None:
    lines = 3 * BLOCK_LINES + 5
    blocks = [block for block in cut_lines(io.BytesIO(b"x\n" * lines), 1 << 20, 1 << 20) if isinstance(block, Block)]
    assert all(len(block.lines) <= BLOCK_LINES for block in blocks)
    assert sum(len(block.lines) for block in blocks) == lines
    assert [block.first_line for block in blocks] == [
        1 + sum(len(before.lines) for before in blocks[:index]) for index in range(len(blocks))
    ]
