"""torch.compile's cache after a run that was killed while it compiled: cut libraries are found, and made anew."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.corpora import write_corpus
from tests.train.test_ranks import ROOT
from tests.train.tiny import tiny_assignments
from train.compiled import drop_cut_libraries

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's import
LIBRARY = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache" / "ab").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.mark.parametrize("left", [0, 1, 63, 64, 4096, -10_000, -1])
def test_a_library_that_is_cut_anywhere_is_deleted_and_named(cache: Path, left: int) -> None:
    whole, cut = cache / "ab" / "cwhole.main.so", cache / "ab" / "ccut.main.so"
    for path in (whole, cut):
        shutil.copyfile(LIBRARY, path)
    os.truncate(cut, left if left >= 0 else cut.stat().st_size + left)
    said: list[str] = []
    drop_cut_libraries(said.append)
    assert [path.name for path in cache.rglob("*.so")] == [whole.name]
    assert said == [f"{cut} was cut, as a killed run of torch.compile leaves it: it is compiled anew"]


def test_a_library_whose_header_is_not_written_yet_is_cut(cache: Path) -> None:
    path = cache / "ab" / "cut.main.so"
    path.write_bytes(bytes(70_000))
    drop_cut_libraries(lambda _: None)
    assert not path.exists()


def test_a_library_that_another_process_is_making_is_left_alone(cache: Path) -> None:
    path, lock = cache / "ab" / "cut.main.so", cache / "locks" / "cut.lock"
    path.write_bytes(b"")
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        drop_cut_libraries(lambda _: None)
        assert path.exists()
    drop_cut_libraries(lambda _: None)
    assert not path.exists()


def pretrain(corpus: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    changes = {"runtime__compile": "true", "schedule__max_steps": 4, "model__num_hidden_layers": 1}
    settings = [word for text in tiny_assignments(**changes) for word in ("--set", text)]
    command = ["pretrain", "--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet", *settings]
    return subprocess.run(
        [sys.executable, "-m", "cli", *command, "--stop-after-step", "1"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
def test_a_run_compiles_anew_what_a_killed_one_has_left_cut(tmp_path: Path) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    assert pretrain(corpus, tmp_path / "one", TORCHINDUCTOR_CACHE_DIR=str(cache)).returncode == 75
    libraries = sorted(cache.rglob("*.so"))
    for number, library in enumerate(libraries):
        os.truncate(library, (0, 3000, library.stat().st_size // 2)[number % 3])
    ended = pretrain(corpus, tmp_path / "two", TORCHINDUCTOR_CACHE_DIR=str(cache))
    assert ended.returncode == 75, ended.stderr
    assert ended.stderr.count(" was cut, ") == len(libraries) > 3
    for name in ("metrics.jsonl", "checkpoints/step-00000001/model.safetensors"):
        assert (tmp_path / "two" / name).exists()


@pytest.mark.slow
def test_what_cannot_be_compiled_is_refused_in_one_line_that_names_the_cache(tmp_path: Path) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    ended = pretrain(corpus, tmp_path / "run", TORCHINDUCTOR_CACHE_DIR=str(cache), CXX="/bin/false")
    assert ended.returncode == 1
    error, hint = ended.stderr.rstrip("\n").split("\n\n")[-2:]
    assert error.splitlines()[-1].startswith(f"error: torch.compile, whose cache is {cache}, fails: ")
    assert hint == f"hint: rm -r {cache}, should a file of it be damaged; or --set runtime.compile=false"
    assert "Traceback" not in ended.stderr
