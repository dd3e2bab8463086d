import json
import shlex

import pytest
import typer

from cli import console


@pytest.mark.parametrize(
    ("done", "total", "unit", "expected"),
    [
        (8_850_000, 33_000_000, "B", "bytes: 8.85 MB of 33 MB, 885 kB/s, 27 s left loss 2.346"),
        (250, 1000, "steps", "bytes: 250 steps of 1,000 steps, 25 steps/s, 30 s left loss 2.346"),
        (3, None, "cells", "bytes: 3 cells, 0.3 cells/s loss 2.346"),
    ],
)
def test_without_a_terminal_progress_is_a_plain_line_every_ten_seconds(
    done: float,
    total: float | None,
    unit: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("bytes", unit) as show:
        now = 5.0
        show(done / 2, total, {})
        now = 10.0
        show(done, total, {"loss": 2.3456})
        now = 15.0
        show(done, total, {})
    assert capsys.readouterr().err == expected + "\n"


def test_quiet_progress_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("bytes", "B", quiet=True) as show:
        now = 60.0
        show(1, 2, {})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["make", "a", "b", "--no-report", "--size", "3"],
        ["make", "a", "--report", "--size=3"],
        ["make", "--size", "3", "--", "-a", "b c"],
    ],
)
def test_the_command_line_of_a_record_does_the_same_again(words: list[str]) -> None:
    seen = []
    app = typer.Typer()

    @app.command()
    def make(
        context: typer.Context,
        inputs: list[str],
        size: int = 1,
        report: bool = True,
    ) -> None:
        seen.append((inputs, size, report, console.command_line(context)))

    command = typer.main.get_command(app)
    command.main(words[1:], prog_name="make", standalone_mode=False)
    command.main(shlex.split(seen[0][3])[1:], prog_name="make", standalone_mode=False)
    assert seen[0] == seen[1]


def test_control_characters_of_what_is_said_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;title\x07\x9b31m\x7f\r\tb\nc é"
    visible = "a\\x1b]0;title\\x07\\x9b31m\\x7f\\x0d\tb\nc é"
    console.say(hostile)
    console.show(hostile)
    console.print_error(ValueError(hostile))
    printed = capsys.readouterr()
    assert printed.out == f"{visible}\n"
    assert printed.err == f"{visible}\nerror: {visible}\n"
    console.print_json({hostile: hostile})
    text = capsys.readouterr().out
    assert json.loads(text) == {hostile: hostile}
    assert not any(letter in text for letter in "\x1b\x07\x9b\x7f\r")
