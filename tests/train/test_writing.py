"""What is written beside our own files: modes, and a disk that is full."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durable.files import whole_folder
from symbert import SymbertConfig, SymbertForMaskedLM
from tests.corpora import write_corpus
from tests.train.test_ranks import ROOT
from tests.train.tiny import tiny_assignments
from train.checkpoint import checkpoint_folder

SMALL = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    settings = [word for text in tiny_assignments(schedule__max_steps=4) for word in ("--set", text)]
    line = ["pretrain", "--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet"]
    return [sys.executable, "-m", "cli", *line, *settings, *more]


def finished(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def modes(folder: Path) -> set[str]:
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("umask", "mode"), [(0o002, "0o664"), pytest.param(0o077, "0o600", marks=pytest.mark.long)])
def test_every_file_of_checkpoints_and_exports_follows_the_umask(tmp_path: Path, umask: int, mode: str) -> None:
    corpus, run = write_corpus(tmp_path / "corpus"), tmp_path / "run"
    assert finished(command(corpus, run), umask=umask).returncode == 0
    assert modes(checkpoint_folder(run, 4)) == {mode}
    for form in ("hub", "bert"):
        words = [sys.executable, "-m", "cli", "export", str(run), "--format", form, "--out", str(tmp_path / form)]
        assert finished(words, umask=umask).returncode == 0
        weights = (tmp_path / form / "model.safetensors").stat().st_mode
        assert oct(stat.S_IMODE(weights)) == mode
        assert oct(stat.S_IMODE((tmp_path / form / "config.json").stat().st_mode)) == mode


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_every_part_of_sharded_weights_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40}
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "model") as partial:
            SymbertForMaskedLM(SymbertConfig(**sizes, vocab_size=101)).save_pretrained(partial, max_shard_size="20KB")
    finally:
        os.umask(before)
    parts = list((tmp_path / "model").glob("model-*.safetensors"))
    assert len(parts) > 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in parts} == {mode}


@pytest.mark.long
@pytest.mark.parametrize(("limit", "named"), [(20_000, "checkpoints/step-00000004")])
def test_a_file_that_grows_too_large_is_one_line_that_names_it(tmp_path: Path, limit: int, named: str) -> None:
    corpus, run = write_corpus(tmp_path / "corpus"), tmp_path / "run"
    words = command(corpus, run)
    starts = f"{SMALL} resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    module = "sys.argv = ['symbert', *sys.argv[1:]]; runpy.run_module('cli', run_name='__main__')"
    ended = finished([sys.executable, "-c", starts + module, *words[3:]])
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"error: {run / named}: File too large"
    assert "Traceback" not in ended.stderr
    assert not list(run.glob("checkpoints/*"))
    assert not list(run.rglob("*.partial-*"))
    assert finished(command(corpus, run)).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[int], list[str]]:
    """Makes the beginning of a command line that runs with a file system of so many kB at tmp_path/disk."""
    (tmp_path / "disk").mkdir()

    def prefix(size: int) -> list[str]:
        mount = f'mount -t tmpfs -o size={size}k tmpfs {tmp_path}/disk && exec "$@"; ls -A {tmp_path}/disk/run'
        words = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
        if shutil.which("unshare") is None or finished([*words, "true"]).returncode:
            pytest.skip("needs a mount namespace of its own")
        return words

    return prefix


@pytest.mark.slow
@pytest.mark.parametrize("size", [60, 200])
def test_a_disk_that_is_really_full_is_one_line_that_names_what_was_written(
    tmp_path: Path, small_disk: Callable[[int], list[str]], size: int
) -> None:
    corpus, run = write_corpus(tmp_path / "corpus"), tmp_path / "disk" / "run"
    ended = finished([*small_disk(size), *command(corpus, run)])
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last == f"error: {checkpoint_folder(run, 4)}: No space left on device"
    assert "Traceback" not in ended.stderr
