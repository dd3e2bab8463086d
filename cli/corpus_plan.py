"""From the options of `symbert prepare` to the corpus that they describe."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.console import say
from cli.corpus_tokenizer import find_tokenizer
from cli.values import refuse
from durable.errors import few

if TYPE_CHECKING:
    from oscar_prep.configuration import Configuration
    from oscar_prep.inputs import Inputs
    from oscar_prep.plan import Plan
    from oscar_prep.sources import Sources

AS_GIVEN = (
    "sequence_length", "validation_samples", "validation_share", "salt", "harmful_pp", "missing_harmful_pp",
    "missing_warnings", "rescore", "language", "content_field", "url_field", "max_documents", "max_tokens",
)  # fmt: skip
"""Options that are settings of the same name and value."""


def plan_of(parameters: Mapping[str, Any], quiet: bool) -> "Plan":
    """The corpus that the parameters of `symbert prepare` describe."""
    from durable.errors import with_hint
    from durable.settings import validated
    from oscar_prep.configuration import DROPPED_CATEGORIES, Configuration
    from oscar_prep.errors import PrepareError
    from oscar_prep.first_records import check_first_records
    from oscar_prep.inputs import STATE
    from oscar_prep.sources import Sources
    from oscar_prep.worker import keep_pandas_out

    settings = {name: parameters[name] for name in AS_GIVEN}
    categories, warnings = parameters["drop_categories"], parameters["drop_warnings"]
    settings["drop_categories"] = _names_of(categories) if categories else DROPPED_CATEGORIES
    settings["drop_warnings"] = "all" if warnings == "all" else _names_of(warnings)
    if parameters["min_language_probability"] is not None:
        if parameters["language"] is None:
            raise with_hint(PrepareError("--min-language-probability needs --language"), "--language en")
        settings["min_language_probability"] = parameters["min_language_probability"]
    configuration = validated(Configuration, settings, what="prepare")
    configuration.layout.check()
    sources = Sources(parameters["blocklists"], parameters["kenlm"], parameters["language_model"])
    plan = _plan(parameters["inputs"], parameters["tokenizer"], configuration, sources, quiet)
    plan = _with_output(plan, parameters["out"] or "", parameters["staging"])
    if parameters["max_bad_share"] < 1 and not (plan.out / STATE).is_file():
        keep_pandas_out()
        check_first_records(plan.files, configuration.layout)
    return plan


def _plan(inputs: list[str], tokenizer: str, configuration: "Configuration", sources: "Sources", quiet: bool) -> "Plan":
    from oscar_prep.plan import Plan
    from oscar_prep.tokenize import load_fast

    found = found_inputs(inputs, quiet)
    chosen = find_tokenizer(tokenizer)
    if not quiet and isinstance(reason := load_fast(chosen), str):
        say(f"note: tokenizers computes the ids, some 20 times as slowly as nanotoken does BERT's WordPiece: {reason}")
    return Plan(Path(), tuple(found.files), chosen, configuration, sources)


def found_inputs(inputs: list[str], quiet: bool) -> "Inputs":
    """The files of INPUT...; says what beside them is none of them, or is not there."""
    from durable.remote import place
    from oscar_prep.inputs import discover

    found = discover([place(text) for text in inputs])
    if found.ignored and not quiet:
        say(f"ignored {len(found.ignored)} other files: {few(path.name for path in found.ignored)}")
    if found.absent:
        names = few(path.name for path in found.absent)
        say(f"note: the checksums list {len(found.absent):,} shards that are not there: {names}")
    if found.corpora and not quiet:
        say(f"left out what is a corpus already: {', '.join(map(str, found.corpora))}")
    return found


def _with_output(plan: "Plan", out: str, staging: Path | None) -> "Plan":
    """The plan with the folder to write to: `out` itself, or a folder here from which all is copied to the URL."""
    import hashlib
    import os
    from dataclasses import replace

    from durable.errors import with_hint
    from durable.remote import RemotePath, place
    from oscar_prep.errors import PrepareError

    target = place(out)
    if isinstance(target, RemotePath):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        own = cache / "symbert" / "staging" / hashlib.sha256(target.url.encode()).hexdigest()[:16]
        return replace(plan, out=staging or own, target=target)
    if staging is not None:
        raise with_hint(PrepareError(f"--staging is for an --out that is a URL, not for {out}"), "leave it out")
    return replace(plan, out=target)


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse, as a wrong command line, what can be told from the parameters alone."""
    _refuse_empty_range(*parameters["harmful_pp"])
    _refuse_no_names("--drop-categories", parameters["drop_categories"])
    _refuse_no_names("--drop-warnings", parameters["drop_warnings"])
    _refuse_unknown_warnings(parameters["drop_warnings"])
    if parameters["blocklists"] is None:
        _check_categories(parameters["drop_categories"])
    estimate, engine, slice_ = parameters["estimate"], parameters["engine"], parameters["slice_"]
    if parameters["out"] is None and estimate is None:
        raise typer.BadParameter("missing option '--out'")
    if estimate is not None and (engine != "local" or slice_ is not None):
        raise refuse("--estimate", "it runs on this machine, in one piece")
    if slice_ not in (None, "finish") and engine != "local":
        raise refuse("--slice", "--engine divides the work too: give one of them")
    if parameters["ship_files"] and parameters["ray_address"] in (None, "local"):
        raise refuse("--ship-files", "files are sent to a cluster that runs: give its --ray-address")


def _refuse_empty_range(least: float, most: float) -> None:
    if not least < most:
        raise refuse("--harmful-pp", f"{least:g} {most:g} is empty, expected MIN < MAX")
    if math.isinf(least) or math.isinf(most):
        raise refuse("--harmful-pp", f"{least:g} {most:g}, expected two finite numbers", "--harmful-pp 5 1e300")


def _refuse_unknown_warnings(text: str) -> None:
    from oscar_prep.configuration import QUALITY_WARNINGS

    unknown = [name for name in _names_of(text) if name not in QUALITY_WARNINGS]
    if text != "all" and unknown:
        raise refuse("--drop-warnings", f"`{unknown[0]}` is not one of {', '.join(QUALITY_WARNINGS)}, all, none")


def _check_categories(text: str | None) -> None:
    """Refuse, as a wrong command line, what looks like a slip for a category of UT1; say so of other unknown names.

    Judged by lists, names are held to the lists themselves; records may carry any.
    """
    import difflib

    from blocklists.ut1 import KNOWN_ALIASES, KNOWN_CATEGORIES

    known = {*KNOWN_CATEGORIES, *KNOWN_ALIASES}
    for name in sorted(set(_names_of(text or "")) - known):
        if near := difflib.get_close_matches(name, known):
            raise refuse("--drop-categories", f"`{name}` is not a category of UT1; near it are {', '.join(near)}")
        say(f"note: `{name}` is not a category of UT1 as we know it; only records that carry it are dropped by it")


def _names_of(text: str) -> tuple[str, ...]:
    """A list by commas; `none` is an empty one."""
    return () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse_no_names(option: str, text: str | None) -> None:
    if text is not None and text != "none" and not _names_of(text):
        raise refuse(option, f"`{text}` holds no name, expected a list such as a,b, or none")
