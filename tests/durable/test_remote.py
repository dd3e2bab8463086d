"""Files behind URLs: fsspec's memory for what is the same everywhere, a real S3 server for what is not."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from durable import stores
from durable.errors import DurableError
from durable.files import file_sha256
from durable.remote import BLOCK_BYTES, RemotePath, place
from tests.object_store import KEY, SECRET, Store, start_store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def memory() -> Iterator[RemotePath]:
    """An empty folder in this process's memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield RemotePath("memory://corpus")
    files.store.clear()


def test_a_path_and_a_file_url_are_local(tmp_path: Path) -> None:
    assert place("corpus/part_1.jsonl") == Path("corpus/part_1.jsonl")
    assert place(f"file://{tmp_path}") == tmp_path
    assert place("S3://bucket/folder/") == RemotePath("s3://bucket/folder")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/folder", r"ftp:// is not known, expected s3://, gs://, hf://, file://"),
        ("s3://", "s3:// names no bucket"),
        (f"s3://{KEY}:{SECRET}@bucket/folder", r"s3://\*\*\*@bucket/folder holds a user, a password or a signature"),
        (f"s3://bucket/part?X-Amz-Signature={SECRET}", r"s3://bucket/part\?\*\*\* holds a user, a password or"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(DurableError, match=message) as error:
        place(url)
    assert SECRET not in str(error.value)
    assert error.value.__notes__


def test_a_revision_of_a_data_set_on_the_hub_is_no_user() -> None:
    assert str(place("hf://datasets/oscar-corpus/OSCAR-2301@main/en_meta")).endswith("OSCAR-2301@main/en_meta")


def test_files_are_written_listed_read_and_removed(memory: RemotePath, tmp_path: Path) -> None:
    (memory / "train/a.arrow").write_bytes(b"rows")
    (tmp_path / "b").write_bytes(b"more rows")
    (memory / "train/b.arrow").upload(tmp_path / "b")
    assert [(file.relative_to(memory), file.size) for file in memory.files()] == [
        ("train/a.arrow", 4), ("train/b.arrow", 9),
    ]  # fmt: skip
    assert [file.name for file in (memory / "train").iterdir()] == ["a.arrow", "b.arrow"]
    assert [file.name for file in memory.glob("train/b*")] == ["b.arrow"]
    assert (memory / "train/a.arrow").read_text() == "rows"
    assert file_sha256(memory / "train/b.arrow") == hashlib.sha256(b"more rows").hexdigest()
    assert (memory.is_dir(), memory.is_file(), (memory / "train/a.arrow").is_file()) == (True, False, True)
    (memory / "train/a.arrow").unlink()
    assert not (memory / "train/a.arrow").exists()
    with pytest.raises(DurableError, match=r"memory://corpus/train/a\.arrow does not exist"):
        (memory / "train/a.arrow").read_bytes()


def test_only_one_of_two_creates_a_file(memory: RemotePath) -> None:
    assert (memory / "state").create(b"first")
    assert not (memory / "state").create(b"second")
    assert (memory / "state").read_bytes() == b"first"


def test_a_file_larger_than_a_block_is_read_from_any_place(memory: RemotePath) -> None:
    content = os.urandom(BLOCK_BYTES + 1000)
    (memory / "part").write_bytes(content)
    with (memory / "part").open() as file:
        assert file.read() == content
        assert file.read(1) == b""
        file.seek(-1500, os.SEEK_END)
        assert file.read(1200) == content[-1500:-300]
        assert file.tell() == len(content) - 300


def test_a_file_that_changes_while_it_is_read_is_an_error(memory: RemotePath) -> None:
    (memory / "part").write_bytes(b"x" * (BLOCK_BYTES + 10))
    with (memory / "part").open() as file:
        file.read(100)
        (memory / "part").write_bytes(b"y" * (BLOCK_BYTES + 10))
        with pytest.raises(DurableError, match="memory://corpus/part has changed while it was read"):
            while file.read(1 << 20):
                pass


def test_a_package_that_is_not_there_is_named_with_how_to_install_it() -> None:
    program = (
        "import sys\n"
        "sys.modules['s3fs'] = None\n"
        "from durable.remote import place\n"
        "try:\n    place('s3://bucket/part').exists()\n"
        "except ValueError as error:\n    print(error, *error.__notes__, sep='|')"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "s3:// needs s3fs, which is not installed|pip install 'symbert[s3]'"


# A real server


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    pytest.importorskip("moto", reason="the extra dev")
    pytest.importorskip("s3fs", reason="the extra s3")
    store, stop = start_store()
    yield store
    stop()


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server, and this process set up to reach it without long waits."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(stores, "LONGEST_WAIT", 0.05)
    server.failing.clear()
    forget()
    yield server
    forget()


def forget() -> None:
    """Make file systems anew from the environment."""
    stores.filesystem.cache_clear()
    fsspec.filesystem("memory").clear_instance_cache()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("store")
def test_an_object_is_written_read_and_removed(tmp_path: Path) -> None:
    content = os.urandom(BLOCK_BYTES + 1000)
    (tmp_path / "part").write_bytes(content)
    part = RemotePath("s3://oscar/written/part_1")
    part.upload(tmp_path / "part")
    assert file_sha256(part) == hashlib.sha256(content).hexdigest()
    assert [file.url for file in part.parent.files()] == [part.url]
    assert part.create(b"other") is False
    part.unlink()
    assert not part.exists()


def test_answers_of_503_are_tried_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"rows")
    part = RemotePath("s3://oscar/busy/part_1")
    store.failing += [("PUT", "part_1")] * 2 + [("GET", "part_1")] * 3
    part.upload(tmp_path / "part")
    assert part.read_bytes() == b"rows"
    assert store.failing == []


def test_an_answer_that_breaks_off_is_asked_for_again(store: Store) -> None:
    content = os.urandom(100_000)
    part = RemotePath("s3://oscar/broken/part_1")
    part.write_bytes(content)
    store.breaking += [("GET", "part_1")] * 3
    with part.open() as file:
        assert file.read() == content
    assert store.breaking == []


def test_an_answer_of_503_for_ever_is_an_error_after_a_bounded_number_of_attempts(store: Store) -> None:
    RemotePath("s3://oscar/dead/part_1").write_bytes(b"rows")
    store.failing += [("GET", "part_1")] * 100
    before = len(store.requests)
    with pytest.raises(DurableError, match=r"s3://oscar/dead/part_1: the service does not answer as it should"):
        RemotePath("s3://oscar/dead/part_1").read_bytes()
    gets = [request for request in store.requests[before:] if request[0] == "GET"]
    assert len(gets) == stores.ATTEMPTS


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/part", "s3://no-such-bucket/part does not exist"),
        ("s3://oscar/no/such/key", "s3://oscar/no/such/key does not exist"),
    ],
)
def test_a_bucket_or_a_key_that_is_not_there_is_named(store: Store, url: str, message: str) -> None:
    before = len(store.requests)
    with pytest.raises(DurableError, match=message):
        RemotePath(url).read_bytes()
    assert len(store.requests) - before <= 3


@pytest.mark.usefixtures("store")
def test_a_bucket_without_permission_is_an_error_that_names_no_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(DurableError, match="s3://oscar/part: access was denied") as error:
        RemotePath("s3://oscar/part").read_bytes()
    assert "AWS_PROFILE" in error.value.__notes__[0]
    assert error.value.__cause__ is None
    assert KEY not in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_an_endpoint_that_never_answers_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SILENT_SECONDS", 1)
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: [held.append(silent.accept()[0]) for _ in range(2)], daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        forget()
        with pytest.raises(DurableError, match="s3://oscar/part: the service does not answer") as error:
            RemotePath("s3://oscar/part").read_bytes()
        for connection in held:
            connection.close()
    assert "AWS_ENDPOINT_URL" in error.value.__notes__[0]


@pytest.mark.usefixtures("store")
def test_secrets_of_the_environment_are_never_said() -> None:
    assert stores.without_secrets(f"bad {SECRET} for {KEY}") == "bad *** for ***"
    assert stores.without_secrets("http://user:word@host/x?sig=abc") == "http://***@host/x?***"
