import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

from cli.main import run
from durable.settings import validated
from tests.docs.test_reference import GENERATOR
from train.recipe import Recipe

walk = GENERATOR.walk
DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, kind: str) -> list[str]:
    """The code blocks of one kind."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of every `$ symbert …` of a page's console blocks; a backslash joins lines."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ symbert")]


@pytest.mark.slow
@pytest.mark.shared
def test_the_tutorial_runs_to_its_end(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    (tmp_path / "oscar").mkdir()
    shard = "en_meta_part_6.jsonl.zst"
    (tmp_path / "oscar" / shard).symlink_to(shared / "oscar2301" / "en_meta" / shard)
    (tmp_path / "glue").symlink_to(shared / "glue")
    (recipe,) = blocks("tutorial.md", "toml")
    (tmp_path / "tiny.toml").write_text(recipe, "utf-8")
    found = commands("tutorial.md")
    assert [words[0] for words in found] == [
        "tokenizer", "prepare", "verify", "pretrain", "pretrain", "glue", "report",
    ]  # fmt: skip
    for words in found:
        assert run(words) == 0, words
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "The ledger closes" in page
    assert "the average holds 1 of nine numbers" in page


def test_the_tutorials_recipe_is_one() -> None:
    (recipe,) = blocks("tutorial.md", "toml")
    assert validated(Recipe, tomllib.loads(recipe), what="recipe").schedule.max_steps == 60


def test_the_how_tos_and_concepts_name_commands_and_options_that_exist() -> None:
    known = {f"symbert {' '.join(name.split()[1:])}": command for name, command in walk()}
    for page in DOCS.rglob("*.md"):
        for block in blocks(str(page.relative_to(DOCS)), "(?:text|bash|console)"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").removeprefix("until ").split(";")[0].split()
                if words[:1] == ["symbert"]:
                    name = next((name for name in known if words[: len(name.split())] == name.split()), None)
                    assert name, f"{page.name}: {line}"
                    options = {option for parameter in known[name].params for option in parameter.opts}
                    if words[1] == "slurm":  # which passes on what is not its own
                        submitted = known[f"symbert {words[2]}"].params
                        options |= {option for parameter in submitted for option in parameter.opts}
                    used = {word.partition("=")[0] for word in words if word.startswith("--")}
                    assert used <= options, f"{page.name}: {line}"
