"""From finished units to a corpus: the validation split cut, the ledger closed, the manifest written last."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from durable.errors import few, with_hint
from durable.files import write_bytes, write_json
from durable.remote import Place
from durable.tasks import ATTEMPTS
from oscar_prep.errors import PrepareError
from oscar_prep.inputs import WHAT_TO_GIVE
from oscar_prep.ledger import Ledger
from oscar_prep.plan import FORMAT, FORMAT_VERSION, MANIFEST, STATE, TOKENIZER, Plan
from oscar_prep.record import TRAIN, VALIDATION, Unit, UnitRecord
from oscar_prep.shapes import MANIFEST_AGAIN, UNIT_AGAIN
from oscar_prep.shards import (
    SPLITS,
    FileRecord,
    corpus_hash,
    dataset_files,
    problem,
    read_json,
    read_rows,
    shard_writer,
)
from oscar_prep.tokenizer import TOKENIZER_FILE

WHICH_FIELD = "--content-field names the text where it is not `content`"
WHICH_FOLDER = "give the folder that `symbert prepare` was given as --out"


def finish(plan: Plan, outcomes: Sequence[UnitRecord | Unit], max_bad_share: float) -> dict[str, Any]:
    """Make the units a corpus; a Unit among the outcomes is one that was lost. Returns the manifest.

    Raises PrepareError, and writes no manifest, if too many lines are broken, nothing is left to train or to
    validate on, or a sum does not close.
    """
    configuration = plan.configuration
    records = [outcome for outcome in outcomes if isinstance(outcome, UnitRecord)]
    lost = [outcome.file.name for outcome in outcomes if isinstance(outcome, Unit)]
    total = total_of(records)
    if not total.documents:
        raise _nothing_read(lost)
    _check_bad_share(plan.out, records, total, max_bad_share)
    if configuration.validation_samples:
        records = _cut_validation(plan, records)
        total = total_of(records)
    total.check(configuration.sequence_length)
    _check_samples(plan, records, total, lost)
    _remove_left_out(plan, outcomes)
    splits = splits_of(records)
    for name, content in dataset_files(splits, configuration.sequence_length, plan.tokenizer.dtype).items():
        write_json(plan.out / name, content, name="dataset")
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "corpus_hash": corpus_hash(shard for shards in splits.values() for shard in shards),
        "sequence_length": configuration.sequence_length,
        "configuration": configuration.as_json(),
        **{name: plan.identity[name] for name in ("blocklists", "kenlm", "language_model")},
        "tokenizer": plan.tokenizer.as_json(),
        "splits": {name: _split_as_json(shards, plan.tokenizer.dtype) for name, shards in splits.items()},
        "ledger": total.as_json(),
        "units": [record.as_json() for record in records],
        "lost": lost,
        "unread": [file.name for file in plan.files[len(outcomes) :]],
    }
    import msgspec

    # json indents in pure Python, which takes ten times as long: a second for 10,000 units.
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_bytes(plan.out / MANIFEST, content + b"\n", name="manifest")
    return manifest


def read_manifest(corpus: Place) -> dict[str, Any]:
    """The manifest of a finished corpus. Raises PrepareError if there is none that this version reads."""
    if corpus.is_file():
        raise with_hint(PrepareError(f"{corpus} is a file, expected a corpus folder"), WHICH_FOLDER)
    if not corpus.is_dir():
        raise with_hint(PrepareError(f"{corpus} does not exist, expected a corpus folder"), WHICH_FOLDER)
    if not (corpus / MANIFEST).is_file():
        if not (corpus / STATE).is_file():
            raise with_hint(PrepareError(f"{corpus} is no corpus: it holds no {MANIFEST}"), WHICH_FOLDER)
        raise with_hint(
            PrepareError(f"{corpus} is a corpus that is not finished: it holds no {MANIFEST} yet"),
            "run `symbert prepare` again with the same settings to finish it",
        )
    try:
        manifest = read_json(corpus / MANIFEST)
    except PrepareError as error:
        raise with_hint(error, MANIFEST_AGAIN) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PrepareError(f"{corpus / MANIFEST} is not the manifest of a {FORMAT}")
    if manifest.get("format_version") != FORMAT_VERSION:
        found = manifest.get("format_version")
        raise PrepareError(f"{corpus / MANIFEST} is of format version {found}, expected {FORMAT_VERSION}")
    return manifest


def _listed(manifest: dict[str, Any], corpus: Place) -> list[tuple[str, int]]:
    """Name and size of every file of a corpus."""
    try:
        of_units = [
            unit.get(part) for unit in manifest.get("units", ()) for part in (*SPLITS, "documents", "quarantine")
        ]
        of_splits = [shard for split in manifest.get("splits", {}).values() for shard in split["shards"]]
        return [(str(entry["file"]), int(entry["bytes"])) for entry in filter(None, [*of_splits, *of_units])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise with_hint(PrepareError(f"{corpus / MANIFEST} is damaged: {error!r}"), MANIFEST_AGAIN) from None


def check_listed(corpus: Place) -> None:
    """Look at the name and size of every file that the manifest lists, and open none: `verify` also hashes them.

    Raises PrepareError for the first that is missing or of another size.
    """
    manifest = read_manifest(corpus)
    for name, size in _listed(manifest, corpus):
        path = corpus / name
        problem = "is missing" if not path.is_file() else None
        if problem is None and (found := path.stat().st_size) != size:
            problem = f"has {found:,} bytes, expected {size:,}"
        if problem:
            raise with_hint(
                PrepareError(f"{path} {problem}: the corpus is damaged"), f"symbert verify {corpus} names all damage"
            )


def splits_of(records: Sequence[UnitRecord]) -> dict[str, list[FileRecord]]:
    """The shards of each split in name order; a split without a shard is left out, for it would break `datasets`."""
    validation = [record.validation for record in records if record.validation]
    return {TRAIN: [record.train for record in records], **({VALIDATION: validation} if validation else {})}


def total_of(records: Sequence[UnitRecord]) -> Ledger:
    """The ledger of all units together."""
    total = Ledger()
    for record in records:
        total.add(record.ledger)
    return total


def tokenizer_file(corpus: Place) -> Place:
    """The file whose sha256 is the tokenizer's identity."""
    return corpus / TOKENIZER / TOKENIZER_FILE


def _split_as_json(shards: Sequence[FileRecord], dtype: np.dtype) -> Mapping[str, Any]:
    rows = sum(shard.rows for shard in shards)
    return {"rows": rows, "dtype": str(dtype), "shards": [shard.as_json() for shard in shards]}


def _cut_validation(plan: Plan, records: Sequence[UnitRecord]) -> list[UnitRecord]:
    """Keep the first `validation_samples` rows in file order; the surplus is counted, and its rows written nowhere."""
    kept = _validation_rows(records, plan.configuration.validation_samples)
    return [
        record if record.validation and keep == record.validation.rows else _with_validation(plan, record, keep)
        for record, keep in zip(records, kept, strict=True)
    ]


def _validation_rows(records: Sequence[UnitRecord], samples: int) -> list[int]:
    """How many rows of its validation shard each unit keeps, if the first `samples` are kept in all."""
    kept = []
    for record in records:
        kept.append(min(record.ledger.samples[VALIDATION] + record.ledger.samples["surplus"], samples))
        samples -= kept[-1]
    return kept


def cut_too_short(outcomes: Sequence[UnitRecord | Unit], samples: int) -> list[int]:
    """The places of units whose validation shard an earlier run cut to fewer rows than it keeps now.

    That is so where a unit before them was part of the corpus then, and is lost now.
    """
    places = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, UnitRecord)]
    records = [outcome for outcome in outcomes if isinstance(outcome, UnitRecord)]
    return [
        place
        for place, record, keep in zip(places, records, _validation_rows(records, samples), strict=True)
        if keep > (record.validation.rows if record.validation else 0)
    ]


def _with_validation(plan: Plan, record: UnitRecord, keep: int) -> UnitRecord:
    """The unit with only the first `keep` rows of its validation shard, on disk too."""
    assert record.validation is not None
    assert keep < record.validation.rows, "a shard that was cut cannot grow"
    length, name = plan.configuration.sequence_length, record.validation.file
    if found := problem(plan.out, record.validation):  # what is cut is hashed anew: damage would pass for whole
        raise with_hint(PrepareError(f"{plan.out / name} is damaged: {found}"), UNIT_AGAIN)
    with shard_writer(plan.out, name, length, plan.tokenizer.dtype) as writer:
        for rows in read_rows(plan.out / name, length):
            writer.add(rows[: keep - writer.rows])
    ledger = Ledger()
    ledger.add(record.ledger)
    ledger.samples["surplus"] += record.validation.rows - keep
    ledger.samples[VALIDATION] = keep
    record = replace(record, validation=writer.record, ledger=ledger)
    write_json(plan.out / "units" / f"{Path(name).stem}.json", record.as_json(), name="record")
    return record


def _nothing_read(lost: Sequence[str]) -> PrepareError:
    if not lost:
        return with_hint(PrepareError("the input holds no document, expected a JSON object on each line"), WHAT_TO_GIVE)
    return with_hint(
        PrepareError(
            f"the worker processes died over {len(lost):,} input file{'s' * (len(lost) > 1)}, {ATTEMPTS} times each, "
            f"and no other holds a document: {few(lost)}"
        ),
        "what they wrote before stands above, if anything; where the machine's memory ran out (exit status 137, "
        "`Out of memory` in dmesg) give fewer --workers",
    )


def _check_bad_share(corpus: Path, records: Sequence[UnitRecord], total: Ledger, max_bad_share: float) -> None:
    if total.invalid <= max_bad_share * total.documents:
        return
    first = _first_bad_line(corpus, records)
    message = (
        f"{total.invalid:,} of {total.documents:,} lines are no documents, more than the share of {max_bad_share:g} "
        f"that --max-bad-share allows; {_where(first)}"
    )
    if not total.samples[TRAIN]:
        raise with_hint(PrepareError(message), f"{WHICH_FIELD}; the line begins {first['start'][:80]!r}")
    raise with_hint(
        PrepareError(message),
        f"{corpus / 'quarantine'} gives the line and reason of each; {WHICH_FIELD}, "
        "--max-bad-share 1 puts all of them aside",
    )


def _first_bad_line(corpus: Path, records: Sequence[UnitRecord]) -> dict[str, Any]:
    file = next(record.quarantine.file for record in records if record.quarantine)
    with (corpus / file).open(encoding="utf-8") as lines:
        line: dict[str, Any] = json.loads(next(lines))
    return line


def _where(line: dict[str, Any]) -> str:
    return f"the first is {line['file']} line {line['line']}: {line['reason']}"


def _check_samples(plan: Plan, records: Sequence[UnitRecord], total: Ledger, lost: Sequence[str]) -> None:
    configuration = plan.configuration
    if not total.samples[TRAIN]:
        parts = [f"{count:,} by {name}" for name, count in total.dropped.items()]
        if total.invalid:
            parts.append(
                f"{total.invalid:,} that are no documents; {_where(_first_bad_line(plan.out, records))}; {WHICH_FIELD}"
            )
        left_out = f"; left out, for they kill the process that reads them: {few(lost)}" if lost else ""
        lines = "lines" if total.invalid else "documents"
        raise with_hint(
            PrepareError(
                f"no training sample: {total.kept:,} of {total.documents:,} {lines} were kept, "
                f"with {total.tokens:,} tokens; one sample takes {configuration.sequence_length}{left_out}"
            ),
            f"dropped were {', '.join(parts)}",
        )
    if configuration.validation_samples and not total.samples[VALIDATION]:
        raise with_hint(
            PrepareError(f"no validation sample: --validation-share {configuration.validation_share:g} is too small"),
            "give a larger --validation-share, or --validation-samples 0 to hold nothing out, and another --out",
        )


def _remove_left_out(plan: Plan, outcomes: Sequence[UnitRecord | Unit]) -> None:
    """Remove what is on disk of units that are no part of the corpus.

    A unit that was lost may have committed a shard before its worker died; other workers may have been ahead when
    the budget was reached.
    """
    for unit in plan.units():
        if unit.index >= len(outcomes) or isinstance(outcomes[unit.index], Unit):
            for name in unit.names.values():
                (plan.out / name).unlink(missing_ok=True)
