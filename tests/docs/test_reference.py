import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]


def load_generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "generate_reference", ROOT / "docs" / "generate_reference.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


GENERATOR = load_generator()
COMMANDS = dict(GENERATOR.walk())


def committed(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text("utf-8")


def test_the_reference_is_what_the_program_says() -> None:
    for name, text in GENERATOR.pages().items():
        assert committed(name) == text, f"docs/reference/{name} is out of date: run `make reference`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_says_what_it_is_for(name: str) -> None:
    command = COMMANDS[name]
    page = committed("commands.md")
    assert f"## {name}\n" in page
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert all(f"`{option}`" in page for option in parameter.opts)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def test_every_recipe_key_and_setting_of_the_protocol_has_a_sense() -> None:
    from train.glue.protocol import Protocol
    from train.recipe import Recipe

    for model, page in ((Recipe, committed("recipes.md")), (Protocol, committed("glue-protocol.md"))):
        for key, field in keys(model):
            assert field.description, key
            assert f"| `{key}` |" in page, key


def test_every_shipped_recipe_filter_and_operator_is_described() -> None:
    from oscar_prep.configuration import Configuration
    from oscar_prep.filters import rules_of
    from symbert import OPERATORS
    from train.recipe import recipe_names

    assert all(f"| `{name}` |" in committed("recipes.md") for name in recipe_names())
    assert all(f"\n## {name}\n" in committed("operators.md") for name in OPERATORS)
    asked = [rule.name for rule in rules_of(Configuration())]
    described = [rule.name for rule in GENERATOR.rules()]
    assert [name for name in described if name in asked] == asked
    assert all(f"\n## {name}\n" in committed("filters.md") for name in described)
    assert all(rule.__doc__ for rule in GENERATOR.rules())
    assert all(operator.__doc__ for operator in OPERATORS.values())
