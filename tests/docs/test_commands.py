"""Every symbert command that a page shows is one that the command line takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# In the reference the words after a command are the names of its arguments.
REFERENCE = ROOT / "docs" / "reference" / "commands.md"
BLOCK = re.compile(r"^```(?:console|text|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^\$ |^|--no-python |SIGUSR1 |srun (?:\S+ )*)symbert (?P<words>[a-z].*)$")


def commands_of(page: Path) -> list[str]:
    """What follows `symbert` on the lines of a page's blocks, continued lines joined."""
    lines = [
        re.sub(r"\s+", " ", line)
        for block in BLOCK.findall(page.read_text("utf-8"))
        for line in re.sub(r"\\\n", " ", block).splitlines()
    ]
    return [found["words"] for line in lines if (found := COMMAND.search(line))]


SHOWN = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if page != REFERENCE
    for number, command in enumerate(commands_of(page))
]


def test_the_pages_show_commands() -> None:
    assert len(SHOWN) > 30


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_of_a_page_is_one(command: str) -> None:
    # A shell variable stands for a number as well as for a path.
    words = shlex.split(re.sub(r"\$\{?[A-Z_]+\}?", "1", command), comments=True)
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context("symbert", words)
