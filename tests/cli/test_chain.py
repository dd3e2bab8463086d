import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from cli.chain import Chain, as_typed

ROOT = Path(__file__).parents[2]
CHAIN = "from cli.chain import Chain; Chain(quiet=True).run_side_by_side({commands!r}, at_once={at_once})"


@pytest.mark.slow
def test_each_command_gives_what_it_prints_in_the_order_asked() -> None:
    first, second = Chain().run_side_by_side([["params"], ["env"]], at_once=1)
    assert "python" in second
    assert "python" not in first


def test_commands_are_shown_as_one_would_type_them(capsys: pytest.CaptureFixture[str]) -> None:
    Chain().run("env")
    assert "$ symbert env" in capsys.readouterr().err
    assert as_typed(["prepare", "a folder"]) == "symbert prepare 'a folder'"


def test_after_a_refusal_no_further_command_begins(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused = ["verify", str(tmp_path / "nothing")]
    with pytest.raises(typer.Exit) as ended:
        Chain().run_side_by_side([refused, ["env"]], at_once=1)
    assert ended.value.exit_code == 1
    shown = capfd.readouterr().err
    assert f"stopped at: {as_typed(refused)}" in shown
    assert "$ symbert env" not in shown


@pytest.mark.slow
def test_a_stop_request_reaches_the_command_at_work_and_no_other_begins(tmp_path: Path) -> None:
    from tests.corpora import write_corpus
    from tests.train.tiny import tiny_assignments

    corpus = write_corpus(tmp_path / "corpus")
    settings = [word for assignment in tiny_assignments(schedule__max_steps=100_000) for word in ("--set", assignment)]
    commands = [
        ["pretrain", "--data", str(corpus), "--out", str(tmp_path / name), "--device", "cpu", *settings]
        for name in ("first", "second")
    ]
    code = CHAIN.format(commands=commands, at_once=1)
    chain = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    metrics = tmp_path / "first" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        time.sleep(0.2)
    assert metrics.is_file(), "no step within ten minutes"
    chain.send_signal(signal.SIGTERM)
    assert chain.wait(600) != 0
    assert list((tmp_path / "first" / "checkpoints").glob("step-*/state.json"))
    assert not (tmp_path / "second").exists()
    assert json.loads(metrics.read_text().splitlines()[0])["step"] == 0
