import json
import os
import site
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from durable import __version__
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments

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
    (wheel,) = tmp_path.glob(f"symbert-{__version__}-*.whl")
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_citation_names_the_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.slow
def test_commands_run_where_symbert_is_on_the_path_and_not_installed(tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for path in map(Path, site.getsitepackages()):
        for entry in path.iterdir():
            if "symbert" not in entry.name:
                (libraries / entry.name).symlink_to(entry)
    command = ["pretrain", "--data", str(write_corpus(tmp_path / "corpus")), "--out", str(tmp_path / "run")]
    command += ["--stop-after-step", "1", "--device", "cpu"]
    command += [word for text in tiny_assignments() for word in ("--set", text)]
    script = (
        "import importlib.metadata, sys\n"
        "from cli.main import run\n"
        "from durable.ray_tasks import RayTasks\n"
        "try:\n"
        "    importlib.metadata.version('symbert')\n"
        "except importlib.metadata.PackageNotFoundError:\n"
        "    print(RayTasks(None, None, None)._for_workers('', None).version)\n"
        "    assert run(['--version']) == 0\n"
        "    assert run(['env']) == 0\n"
        f"    assert run({command!r}) == 75\n"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(libraries)])}
    done = subprocess.run([sys.executable, "-S", "-c", script], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{__version__}\nsymbert {__version__}\n")
    record = json.loads((tmp_path / "run" / "environment.json").read_text("utf-8"))
    assert record["invocations"][0]["versions"]["symbert"] == __version__


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
