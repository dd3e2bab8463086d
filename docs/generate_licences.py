"""Writes docs/reference/licences.md: under which terms the packages come that symbert asks for.

Versions are those of constraints.txt; the terms are what the installed packages' metadata say. Run it in an environment
with every extra: `.venv/bin/python docs/generate_licences.py`. A package that is not there keeps its earlier line.
"""

import re
import tomllib
from collections.abc import Mapping
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "licences.md"
HEAD = """<!-- Written by docs/generate_licences.py. -->

# Licences of the dependencies

symbert itself is under Apache-2.0. Below stands every package that `pyproject.toml` asks for, in the version of
`constraints.txt`, with the licence that it names itself. What these packages ask for in turn is there too.
The first part comes with `pip install symbert`; the others are extras.
"""
# The metadata name none, the repository's LICENSE does.
STATED_ELSEWHERE: Mapping[str, str] = {"kenlm": "LGPL-3.0-or-later, parts under other terms"}


def asked_for() -> dict[str, list[str]]:
    """Names of the packages by the extra that asks for them; "core" for none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {group: [re.split(r"[<>=\[; ]", text)[0] for text in texts] for group, texts in groups.items()}


def pinned() -> dict[str, str]:
    """Version of every package in constraints.txt, by its normal name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(name: str) -> str | None:
    """What the installed package says of itself; None if it is not installed."""
    if name in STATED_ELSEWHERE:
        return STATED_ELSEWHERE[name]
    try:
        found = cast(Message, metadata(name))
    except PackageNotFoundError:
        return None
    expression, text = found["License-Expression"], found["License"] or ""
    named = [line.rpartition(" :: ")[2] for line in found.get_all("Classifier", []) if line.startswith("License :: ")]
    named = [line for line in named if line != "OSI Approved"]
    short = text if 0 < len(text) < 60 and "\n" not in text else ""
    return expression or short or ", ".join(named) or "see the package"


def page(earlier: str) -> str:
    """The whole page."""
    kept = dict(re.findall(r"^\| ([^ |]+) \| [^|]+ \| ([^|]+) \|$", earlier, re.MULTILINE))
    versions, parts = pinned(), [HEAD]
    for group, names in asked_for().items():
        parts += [f"## {group}\n", "| package | version | licence |", "|---|---|---|"]
        for name in sorted(names, key=str.lower):
            licence = licence_of(name) or kept.get(name, "not known")
            parts.append(f"| {name} | {versions.get(normal(name), 'not pinned')} | {licence} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8") if PAGE.exists() else ""), "utf-8")
