"""The contract of every option of every command: a value that cannot be is a wrong command line, exit code 2."""

import enum
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.docs.test_reference import COMMANDS

ROOT = Path(__file__).parents[2]
ANY_NUMBER = {"--salt"}


def options() -> Iterator[tuple[str, Any, Any]]:
    """Command, option and the type of its value, for every option that takes a value."""
    for name, command in COMMANDS.items():
        hints = typing.get_type_hints(inspect.unwrap(command.callback))
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                kind = hints[parameter.name]
                while typing.get_origin(kind) not in (None, typing.Literal):
                    kind = next(part for part in typing.get_args(kind) if part is not type(None))
                yield name, parameter, kind


def is_list_of_choices(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Literal or issubclass(kind, enum.Enum)


def line(command: str, parameter: Any, value: str) -> list[str]:
    """A command line that is right but for the value of one option."""
    words = command.split()[1:]
    for other in COMMANDS[command].params:
        if other.required and other is not parameter:
            words += [] if other.param_type_name == "argument" else [other.opts[0]]
            words.append("somewhere")
    return [*words, parameter.opts[0], *[value] * parameter.nargs]


def assert_usage_error(words: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(words) == 2, words
    output = capsys.readouterr()
    assert output.out == ""
    first, *rest = output.err.splitlines()
    assert first.startswith("error: ")
    assert option in first
    assert any(text.startswith("hint: ") for text in rest)


PATHS = [(name, parameter) for name, parameter, kind in options() if kind is Path]
NUMBERS = [(name, parameter, kind) for name, parameter, kind in options() if kind in (int, float)]
CHOICES = [(name, parameter, kind) for name, parameter, kind in options() if is_list_of_choices(kind)]


def names(cases: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"{name} {parameter.opts[0]}" for name, parameter, _ in cases]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("command", "parameter", "kind"), NUMBERS, ids=names(NUMBERS))
def test_a_number_out_of_range_is_a_usage_error_that_names_the_option(
    command: str, parameter: Any, kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    option = parameter.opts[0]
    for wrong in ["many", *([] if option in ANY_NUMBER else ["-7"]), *(["nan", "inf"] if kind is float else ["0.5"])]:
        assert_usage_error(line(command, parameter, wrong), option, capsys)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("command", "parameter", "kind"), CHOICES, ids=names(CHOICES))
def test_a_value_that_is_not_in_its_list_is_a_usage_error_that_names_the_choices(
    command: str, parameter: Any, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(line(command, parameter, "nosuch")) == 2
    said = capsys.readouterr().err
    assert f"'{parameter.opts[0]}': 'nosuch' is not one of" in said
    allowed = typing.get_args(kind) or [choice.value for choice in kind]
    assert all(f"'{choice}'" in said for choice in allowed)


TEXTS = [
    ("prepare x --out y --max-documents 0", "--max-documents"),
    ("prepare x --out y --max-tokens 0", "--max-tokens"),
    ("prepare x --out y --sequence-length 2", "--sequence-length"),
    ("prepare x --out y --validation-share 0", "--validation-share"),
    ("prepare x --out y --validation-share 1", "--validation-share"),
    ("prepare x --out y --estimate 0", "--estimate"),
    ("prepare x --out y --harmful-pp 9 3", "--harmful-pp"),
    ("prepare x --out y --drop-warnings foo", "--drop-warnings"),
    ("prepare x", "--out"),
    ("tokenizer train x --out y --vocabulary-size 0", "--vocabulary-size"),
    ("blocklists fetch --source harvard", "--source"),
    ("inspect x", "--near"),
    ("inspect x --sample 0 --top-dropped", "--sample and --top-dropped"),
    ("inspect x --near harmful_pp", "--near"),
    ("inspect x --near bytes=1", "--near"),
    ("inspect x --top-dropped --count 0", "--count"),
    ("thresholds x --min-harmful-pp low", "--min-harmful-pp"),
    ("pretrain --data x --out y --max-steps 0", "--max-steps"),
    ("pretrain --data x --out y --stop-after-step 0", "--stop-after-step"),
    ("prepare x --out y --harmful-pp 5 inf", "--harmful-pp"),
    ("prepare x --out y --drop-categories ,", "--drop-categories"),
    ("prepare x --out y --drop-warnings ,", "--drop-warnings"),
    ("pretrain --data x --out y --operator pairwize", "--operator"),
    ("pretrain --data x --out y --operator original,,pairwise", "--operator"),
    ("pretrain --data x --out y --set max_steps", "--set"),
    ("pretrain --data x --out y --device tpu", "--device"),
    ("evaluate x --data y --device mps", "--device"),
    ("evaluate x --data y --samples 0", "--samples"),
    ("glue x --out y --device cuda:", "--device"),
    ("glue x --out y --tasks nosuch", "--tasks"),
    ("glue x --out y --tasks=", "--tasks"),
    ("glue x --out y --tasks cola,,rte", "--tasks"),
    ("glue x --out y --seeds 0", "--seeds"),
    ("glue x --out y --seeds -1", "--seeds"),
    ("glue x --out y --seeds two", "--seeds"),
    ("glue x --out y --learning-rates 1e-5;2", "--learning-rates"),
    ("glue x --out y --noise typos --noise-rate 0", "--noise-rate"),
    ("glue x --out y --noise-rate 0.1", "--noise-rate"),
    ("params --operator pairwize", "--operator"),
    ("params --flops 0", "--flops"),
]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("words", "named"), TEXTS, ids=[words for words, _ in TEXTS])
def test_a_command_line_that_cannot_be_is_a_usage_error_and_writes_nothing(
    words: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert named in output.err
    assert "\nhint: " in output.err
    assert not list(Path.cwd().iterdir())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lists_are_those_of_the_packages_that_use_them() -> None:
    from cli.evaluate import Precision
    from cli.glue import Average, Noise, Which
    from cli.prepare import MissingHarmfulPp, MissingWarnings
    from cli.pretrain import Track
    from cli.report import Format
    from cli.values import Size
    from oscar_prep.configuration import Configuration
    from report.write import FORMATS
    from symbert import SIZES
    from train.glue.checkpoint import WHICH
    from train.glue.noise import NOISES
    from train.glue.tasks import AVERAGES
    from train.recipe import TrainingSection
    from train.track import TRACKERS

    assert [size.value for size in Size] == list(SIZES)
    for ours, theirs in (
        (Which, WHICH),
        (Average, AVERAGES),
        (Noise, NOISES),
        (Format, FORMATS),
        (Track, TRACKERS),
        (Precision, typing.get_args(TrainingSection.model_fields["precision"].annotation)),
        (MissingHarmfulPp, typing.get_args(Configuration.model_fields["missing_harmful_pp"].annotation)),
        (MissingWarnings, typing.get_args(Configuration.model_fields["missing_warnings"].annotation)),
    ):
        assert typing.get_args(ours) == tuple(theirs)


@pytest.mark.parametrize("words", ["--help", "pretrain --help", "pretrain --data x --out y --size huge"])
def test_help_and_usage_errors_need_no_heavy_import(words: str) -> None:
    script = (
        "import sys; from cli.main import run\n"
        "try: run(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'transformers', 'datasets', 'pyarrow'} & sys.modules.keys()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, *words.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("command", "parameter"), PATHS, ids=[f"{name}-{p.name}" for name, p in PATHS])
def test_a_url_is_refused_where_a_path_is_expected(
    command: str, parameter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_usage_error(line(command, parameter, "s3://bucket/file"), parameter.opts[0], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_url_is_refused_as_an_argument_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "s3://bucket/run", "--out", "page.html"]) == 2
    said = capsys.readouterr().err
    assert "'RUN': s3://bucket/run is a URL, expected a path on this machine" in said
