import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARROWS = {
    "durable": set(),
    "symbert": set(),
    "blocklists": {"durable"},
    "oscar_prep": {"blocklists", "durable"},
    "train": {"symbert", "durable"},
    "report": {"oscar_prep", "train", "durable"},
    "cli": {"symbert", "blocklists", "oscar_prep", "train", "report", "durable"},
}
MODEL_MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "safetensors"}


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_where_its_arrows_point(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        wrong = imported(path) & ARROWS.keys() - ARROWS[package] - {package}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_oscar_prep_imports_no_torch() -> None:
    for path in (ROOT / "oscar_prep").rglob("*.py"):
        assert not imported(path) & {"torch", "transformers"}, path


def test_the_model_is_flat_with_relative_imports_of_what_transformers_users_have() -> None:
    import sys

    for path in (ROOT / "symbert").iterdir():
        assert not path.is_dir() or path.name == "__pycache__", f"{path} is a sub-package"
    for path in (ROOT / "symbert").glob("*.py"):
        assert imported(path) <= MODEL_MAY_IMPORT | set(sys.stdlib_module_names), path
