"""A corpus behind a URL: made in a folder here, each unit copied when it is committed, the manifest last.

The store replaces objects whole, so nothing there is ever half-written. A unit's record is copied after its files: a
record there says that its files were copied, and which; a later run copies only what differs from it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable.errors import with_hint
from durable.failpoints import failpoint
from durable.remote import RemotePath
from oscar_prep.errors import PrepareError
from oscar_prep.plan import MANIFEST, STATE, TOKENIZER, changes_since
from oscar_prep.record import Unit, UnitRecord

UPLOADABLE = frozenset({"s3", "gs", "memory"})
PAGES = ("README.md", "report.html")


@dataclass(frozen=True)
class Upload:
    """The copy of the corpus folder `corpus` at `target`."""

    corpus: Path
    target: RemotePath

    def begin(self, identity: dict[str, Any]) -> bool:
        """Claim the target for a corpus of these settings; returns whether nothing was there before.

        Raises PrepareError if it holds something else, or a corpus of other settings; of two runs that begin at
        once with different settings, one is refused.
        """
        if self.target.scheme not in UPLOADABLE:
            raise with_hint(
                PrepareError(f"{self.target}: a corpus cannot be written to {self.target.scheme}://"),
                "give a folder, or s3://bucket/folder",
            )
        state = self.target / STATE
        if not state.is_file():
            found = self.target.files() if self.target.exists() else []
            if found:
                raise with_hint(
                    PrepareError(f"{self.target} is not empty and holds no corpus, such as {found[0].name}"),
                    "give another --out",
                )
            if state.create(json.dumps(identity).encode()):
                return True
        changes = changes_since(self.target, identity)
        if changes:
            raise with_hint(
                PrepareError(f"{self.target} was begun with other settings: {'; '.join(changes)}"),
                "give the same settings to continue, or another --out",
            )
        return False

    def unit(self, unit: Unit, record: UnitRecord) -> None:
        """Copy the files of a unit that are not there yet, then its record."""
        there = self.target / unit.names["record"]
        standing = UnitRecord.read(there) if there.is_file() else None
        copied = [] if standing is None else standing.files()
        for file in record.files():
            target = self.target / file.file
            if file not in copied or not target.is_file() or target.stat().st_size != file.bytes:
                target.upload(self.corpus / file.file)
        failpoint("upload.before-record")
        if standing is None or standing.as_json() != record.as_json():
            there.upload(self.corpus / unit.names["record"])

    def finish(self, manifest: dict[str, Any], units: Sequence[Unit], made: Sequence[UnitRecord | Unit]) -> None:
        """Copy what the end of a run has changed, remove units that are no part of the corpus, then copy the rest."""
        there = {file.relative_to(self.target) for file in self.target.files()}
        kept: set[str] = set()
        for unit, before in zip(units, made, strict=False):
            if isinstance(before, UnitRecord):
                record = UnitRecord.read(self.corpus / unit.names["record"])
                kept |= {unit.names["record"], *(file.file for file in record.files())}
                if record != before or unit.names["record"] not in there:
                    self.unit(unit, record)
        self._remove(there & {name for unit in units for name in unit.names.values()} - kept)
        names = ["dataset_dict.json"]
        names += [f"{split}/{name}" for split in manifest["splits"] for name in ("state.json", "dataset_info.json")]
        names += [f"{TOKENIZER}/{path.name}" for path in sorted((self.corpus / TOKENIZER).iterdir())]
        for name in [*names, MANIFEST]:
            if name == MANIFEST:
                failpoint("upload.before-manifest")
            (self.target / name).upload(self.corpus / name)

    def pages(self) -> None:
        """Copy the pages for readers."""
        for name in PAGES:
            if (self.corpus / name).is_file():
                (self.target / name).upload(self.corpus / name)

    def discard(self, units: Sequence[Unit]) -> None:
        """Remove what runs have copied that made no sample."""
        there = {file.relative_to(self.target) for file in self.target.files()}
        self._remove(there & {STATE, *(name for unit in units for name in unit.names.values())})

    def _remove(self, names: set[str]) -> None:
        for name in sorted(names):
            (self.target / name).unlink()
