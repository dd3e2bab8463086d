import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPECIFICATION = importlib.util.spec_from_file_location("generate_licences", ROOT / "docs" / "generate_licences.py")
assert SPECIFICATION is not None
assert SPECIFICATION.loader is not None
GENERATOR = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(GENERATOR)
PAGE = GENERATOR.PAGE.read_text("utf-8")


def test_every_dependency_stands_with_its_pinned_version_and_a_licence() -> None:
    for names in GENERATOR.asked_for().values():
        for name in names:
            (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} | ")]
            _, _, version, licence, _ = (cell.strip() for cell in line.split("|"))
            assert version == GENERATOR.pinned()[GENERATOR.normal(name)], "run docs/generate_licences.py"
            assert licence not in ("", "not known", "see the package"), name


def test_the_page_names_no_package_that_is_not_asked_for() -> None:
    listed = {line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")} - {"package"}
    assert listed == {name for names in GENERATOR.asked_for().values() for name in names}


def test_a_package_that_is_not_installed_keeps_its_line() -> None:
    assert GENERATOR.page(PAGE) == PAGE
