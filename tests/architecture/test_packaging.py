import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_dependency_ships_one_of_our_package_names(package: str) -> None:
    assert set(packages_distributions().get(package, ["symbert"])) == {"symbert"}


def test_the_wheel_holds_our_packages_and_nothing_else_at_the_top(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(PACKAGES)


def test_every_requirement_has_a_pinned_version() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"].values()
    required = {normal(name) for group in [PROJECT["project"]["dependencies"], *extras] for name in group}
    assert required <= pinned
    assert "torch==2.13.0" in lines


def normal(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].partition("[")[0].lower().replace("_", "-")


def test_help_imports_neither_torch_nor_the_other_heavy_libraries() -> None:
    script = (
        "import sys\n"
        "from cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'ray', 'sklearn', 'pydantic'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)
