"""The files of a corpus: which ones, in which order, under which names, and what their checksums should be."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from durable.errors import with_hint
from durable.files import is_hidden
from durable.remote import Place, RemotePath
from oscar_prep.errors import PrepareError

IN_FOLDERS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".parquet")
ALONE = (".jsonl", ".gz", ".zst", ".zstd", ".parquet")
CHECKSUM_FILE = re.compile(r"(?i)(?:.*\.|checksum\.|)(sha256|sha384)(?:sums?)?(?:\.txt)?$")
CHECKSUM_LINE = re.compile(r"^(\\?)([0-9a-fA-F]+) [ *](.+?)\r?$")
ESCAPED = re.compile(r"\\([\\nr])")
"""How sha256sum writes the backslash and line ends of a name in a line that begins with a backslash."""
WHAT_TO_GIVE = "give the folder of the downloaded shards, or the files themselves"
STATE = "units/configuration.json"
HEX_DIGITS = {"sha256": 64, "sha384": 96}


@dataclass(frozen=True)
class InputFile:
    """One input file; `name` is relative to the INPUT it came from and is all that the corpus records of its place."""

    path: Place
    name: str
    checksum: tuple[str, str] | None = None
    """Algorithm and hexadecimal digest from a checksum file in the same folder."""


@dataclass(frozen=True)
class Inputs:
    """The files to read, in order, and what lay beside them and was left alone."""

    files: list[InputFile]
    ignored: list[Place]
    """Those that are named like shards first."""
    corpora: list[Place]
    """Corpora that earlier runs made within a folder: never input, though their tables are named like shards."""
    absent: list[Path]
    """Shards that a checksum file of a given folder lists and that are not there: a download that is not whole."""


def discover(inputs: Sequence[Place]) -> Inputs:
    """The files of INPUT...: files as given, folders searched in natural order (part_2 before part_10).

    What is hidden in a folder is no shard, nor is a hidden file a list of checksums.

    Raises PrepareError if an INPUT does not exist, is no regular file, holds no shard, or is given twice, and
    DurableError if the service behind a URL refuses or does not answer.
    """
    found: list[tuple[Place, str, str]] = []
    ignored: list[Place] = []
    corpora: list[Place] = []
    for given in inputs:
        if given.is_dir():
            inside, others, made = _search(given)
            corpora += made
            prefix = f"{given.resolve().name}/"
            found += [(path, name, prefix) for name, path in inside]
            ignored += others
        else:
            _check_file(given)
            file = given.listed() if isinstance(given, RemotePath) else given
            found.append((file, given.name, f"{given.resolve().parent.name}/"))
    _refuse_twice([path for path, _, _ in found])
    names = _unique_names(found)
    for name in names:
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise with_hint(PrepareError(f"{name!r}: the file's name is not UTF-8"), "rename the file")
    checksums = _checksums({path.parent for path, _, _ in found} | {given for given in inputs if given.is_dir()})
    files = [
        InputFile(path, name, checksums.get(path.parent / path.name))
        for (path, _, _), name in zip(found, names, strict=True)
    ]
    folders = [given for given in inputs if isinstance(given, Path) and given.is_dir()]
    return Inputs(files, ignored, corpora, [path for folder in folders for path in _absent(folder, checksums)])


def natural_key(path: Place) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts part_2 before part_10, and part_01 before part_1 wherever they come from."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], str(path)


def _files_below(folder: Place) -> Iterator[Place]:
    if isinstance(folder, RemotePath):
        yield from folder.files()
        return
    above = {str(folder): frozenset({os.path.realpath(folder)})}
    for parent, folders, names in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        yield from (Path(parent, name) for name in names)
        real, entered = above.pop(parent), {}
        for name in folders:
            below = os.path.realpath(os.path.join(parent, name))
            # A link to a folder that it lies in leads to nothing new, and never ends.
            if below not in real:
                entered[name] = above[os.path.join(parent, name)] = real | {below}
        folders[:] = entered


def _refuse_unreadable(error: OSError) -> None:
    raise PrepareError(f"{error.filename}: {error.strerror}") from None


def _search(folder: Place) -> tuple[list[tuple[str, Place]], list[Place], list[Place]]:
    """Shards with their names below the folder, other files, and the corpora whose files are neither."""
    # Path.relative_to takes paths of its own kind alone, and so does a URL's.
    files = {str(path.relative_to(folder)): path for path in _files_below(folder)}  # type: ignore[arg-type]
    corpora = sorted(_corpora(files))
    inside, others = [], []
    for name, path in files.items():
        if any(name.startswith(f"{corpus}/") for corpus in corpora):
            continue
        # Hidden are macOS's `._x` beside each x, copies and caches of other programs.
        is_shard = path.name.endswith(IN_FOLDERS) and not is_hidden(PurePosixPath(name))
        if is_shard and isinstance(path, Path) and path.is_symlink() and not path.exists():
            raise PrepareError(f"{path} is a link to nothing, expected a shard")
        if is_shard and path.is_file():
            inside.append((name, path))
        elif not CHECKSUM_FILE.fullmatch(path.name):
            others.append(path)
    if not inside:
        raise with_hint(
            PrepareError(f"{folder} holds no file named *{', *'.join(IN_FOLDERS)}"),
            WHAT_TO_GIVE,
        )
    return (
        sorted(inside, key=lambda shard: natural_key(shard[1])),
        sorted(others, key=lambda path: (not path.name.endswith(IN_FOLDERS), natural_key(path))),
        [folder / name for name in corpora],
    )


def _corpora(names: Collection[str]) -> Iterator[str]:
    """The folders that hold what `symbert prepare` begins or ends a corpus with."""
    for name in names:
        corpus, _, last = name.rpartition("/")
        if last == "manifest.json" and f"{corpus}/dataset_dict.json" in names and corpus:
            yield corpus
        elif name.endswith(f"/{STATE}"):
            yield name.removesuffix(f"/{STATE}")


def _check_file(path: Place) -> None:
    if not path.exists():
        raise with_hint(PrepareError(f"{path} does not exist, expected a file or a folder of shards"), WHAT_TO_GIVE)
    if not path.is_file():
        raise with_hint(
            PrepareError(f"{path} is not a regular file, expected a file or a folder of shards"), WHAT_TO_GIVE
        )
    if not path.name.endswith(ALONE):
        raise with_hint(
            PrepareError(f"{path} is not a shard: expected a name that ends in {', '.join(ALONE)}"), WHAT_TO_GIVE
        )


def _refuse_twice(paths: list[Place]) -> None:
    real = (os.path.realpath(path) if isinstance(path, Path) else path.resolve() for path in paths)
    twice = [path for path, count in Counter(real).items() if count > 1]
    if twice:
        raise with_hint(
            PrepareError(f"{twice[0]} is given twice: its documents would count twice"),
            "give each file, or the folder that holds it, once",
        )


def _unique_names(found: list[tuple[Place, str, str]]) -> list[str]:
    """Names relative to the INPUT, with the INPUT's folder before them where two are the same."""
    counts = Counter(name for _, name, _ in found)
    names = [prefix + name if counts[name] > 1 else name for _, name, prefix in found]
    same = [name for name, count in Counter(names).items() if count > 1]
    if same:
        raise with_hint(
            PrepareError(f"two input files would both be called {same[0]} in the corpus"),
            "give one folder that holds both",
        )
    return names


def _checksums(folders: set[Place]) -> dict[Place, tuple[str, str]]:
    """What checksum.sha256, SHA256SUMS and the like say of the files beside them."""
    expected: dict[Place, tuple[str, str]] = {}
    # The checksum file next to a shard comes last, and has the last word.
    for folder in sorted(folders, key=lambda folder: len(str(folder))):
        beside: list[Place] = [*folder.iterdir()]
        for path in sorted(beside, key=str):
            match = CHECKSUM_FILE.fullmatch(path.name)
            if match and not is_hidden(PurePosixPath(path.name)) and path.is_file():
                algorithm = match.group(1).lower()
                for name, digest in _read_checksum_file(path, algorithm).items():
                    expected[folder / name] = (algorithm, digest)
    return expected


def _absent(folder: Path, listed: Collection[Place]) -> list[Path]:
    named = (path for path in listed if isinstance(path, Path) and path.name.endswith(IN_FOLDERS))
    return sorted((path for path in named if path.is_relative_to(folder) and not path.exists()), key=natural_key)


def _read_checksum_file(path: Place, algorithm: str) -> dict[str, str]:
    entries = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        match = CHECKSUM_LINE.match(line)
        if match and len(match.group(2)) == HEX_DIGITS[algorithm]:
            name = match.group(3).removeprefix("./")
            if match.group(1):
                name = ESCAPED.sub(lambda escaped: {"n": "\n", "r": "\r"}.get(escaped[1], "\\"), name)
            entries[name] = match.group(2).lower()
        elif line.strip() and not line.startswith("#"):
            raise PrepareError(f"{path} line {number}: expected `{algorithm} digest  file name`, got {line[:80]!r}")
    return entries
