"""Folders of UT1 lists as entries: `<category>/domains` holds hosts, `<category>/urls` addresses without a scheme.

The lists are kept by hand and by many: every oddity is either understood and counted, or refused and counted.
"""

import gzip
import ipaddress
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blocklists.errors import BlocklistError
from durable.errors import with_hint

KNOWN_ALIASES = {
    "ads": "publicite",
    "aggressive": "agressif",
    "drugs": "drogue",
    "mail": "webmail",
    "porn": "adult",
    "proxy": "redirector",
    "violence": "agressif",
}
"""UT1's second names, symbolic links in its archive; a copy made without links holds them as folders or not at all."""

KNOWN_CATEGORIES = (
    "adult", "agressif", "ai", "arjel", "associations_religieuses", "astrology", "audio-video", "bank", "bitcoin",
    "blog", "celebrity", "chat", "child", "cleaning", "cooking", "cryptojacking", "dangerous_material", "dating",
    "ddos", "dialer", "doh", "download", "drogue", "dynamic-dns", "educational_games", "examen_pix",
    "exceptions_liste_bu", "fakenews", "filehosting", "financial", "forums", "gambling", "games", "hacking",
    "jobsearch", "lingerie", "liste_blanche", "liste_bu", "malware", "manga", "marketingware", "mixed_adult",
    "mobile-phone", "phishing", "press", "publicite", "radio", "reaffected", "redirector", "remote-control",
    "residential-proxies", "sect", "sexual_education", "shopping", "shortener", "social_networks", "special",
    "sports", "stalkerware", "strict_redirector", "strong_redirector", "translation", "tricheur", "tricheur_pix",
    "update", "vpn", "warez", "webhosting", "webmail",
)  # fmt: skip
"""The lists that UT1 publishes, or has; it adds others from time to time, so that an unknown name may be right."""

_HOSTS_FILE_ADDRESS = "0.0.0.0"


@dataclass
class Category:
    """One list: what its files say, not yet canonical. `oddities` counts lines by what was strange about them."""

    name: str
    hosts: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)


def read_folder(folder: Path, wanted: Sequence[str] | None = None) -> tuple[list[Category], dict[str, str]]:
    """The categories of a folder in name order, all or those `wanted`; and its aliases as {second name: name}.

    Raises BlocklistError if the folder holds no lists, or not a category that is wanted.
    """
    if not folder.is_dir():
        raise BlocklistError(f"{folder} does not exist, expected a folder of UT1 lists")
    there = sorted(path for path in folder.iterdir() if path.is_dir() and list_names(path))
    if not there:
        raise with_hint(
            BlocklistError(f"{folder} holds no lists, expected folders such as {folder / 'adult' / 'domains'}"),
            f"symbert blocklists fetch --out {folder}",
        )
    aliases = {path.name: path.resolve().name for path in there if path.is_symlink()}
    names = {path.name for path in there}
    aliases |= {alias: name for alias, name in KNOWN_ALIASES.items() if name in names}
    asked = None if wanted is None else {aliases.get(name, name) for name in wanted}
    for name in sorted((asked or set()) - names):
        raise no_such_category(str(folder), name, sorted(names))
    categories: dict[str, Category] = {}
    for path in there:
        name = aliases.get(path.name, path.name)
        if path.is_symlink() or (asked is not None and name not in asked):
            continue
        _read_category(path, categories.setdefault(name, Category(name)))
    return [categories[name] for name in sorted(categories)], aliases


def no_such_category(where: str, name: str, there: Sequence[str]) -> BlocklistError:
    """The refusal of a category that neither folder nor index has."""
    return with_hint(
        BlocklistError(f"{where} has no category `{name}`"), f"categories there: {', '.join(there) or 'none'}"
    )


def list_names(folder: Path) -> list[str]:
    """Which of `domains` and `urls` a category's folder holds, whole, in parts, or compressed."""
    return [name for name in ("domains", "urls") if _parts(folder, name)]


def _parts(folder: Path, name: str) -> list[Path]:
    """The files that joined byte by byte make up one list: itself, its .gz, or its parts name.0, name.1, …

    Only an unbroken row of numbers is parts: the archive leaves files such as `domains.24733` beside `domains`.
    """
    for whole in (folder / name, folder / f"{name}.gz"):
        if whole.is_file():
            return [whole]
    for first in (0, 1):
        parts: list[Path] = []
        while (part := folder / f"{name}.{first + len(parts)}").is_file():
            parts.append(part)
        if parts:
            return parts
    return []


def _read_category(folder: Path, category: Category) -> None:
    for name, into in (("domains", category.hosts), ("urls", category.addresses)):
        parts = _parts(folder, name)
        if not parts:
            continue
        category.files += [f"{folder.name}/{part.name}" for part in parts]
        if len(parts) > 1:
            category.oddities["file in parts"] += 1
        content = b"".join(part.read_bytes() for part in parts)
        if parts[0].suffix == ".gz":
            content = _decompressed(parts[0], content)
        entry_of = _host_entry if name == "domains" else _address_entry
        into.extend(_entries(content, entry_of, category.oddities))


def _decompressed(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise BlocklistError(f"{path} is not whole gzip: {error}") from None


def _entries(content: bytes, entry_of, oddities: Counter[str]) -> Iterator[str]:  # type: ignore[no-untyped-def]
    for line in content.split(b"\n"):
        try:
            entry = line.decode("utf-8")
        except UnicodeDecodeError:
            oddities["refused: not UTF-8"] += 1
            continue
        if entry.endswith("\r"):
            oddities["carriage return"] += 1
        entry = entry.strip()
        if not entry:
            continue
        if entry[0] == "#":
            oddities["comment"] += 1
            continue
        entry = entry_of(entry, oddities)
        if entry:
            yield entry


def _host_entry(entry: str, oddities: Counter[str]) -> str:
    """A line of a `domains` file as a host; "" if it is none."""
    if " " in entry or "\t" in entry:
        address, name = entry.split(maxsplit=1)
        if not _is_ip(address) or " " in name:
            oddities["refused: white space"] += 1
            return ""
        oddities["line of a hosts file"] += 1
        entry = name
    elif entry.startswith(_HOSTS_FILE_ADDRESS) and not _is_ip(entry):
        # A hosts file's `0.0.0.0 name` that lost its space.
        oddities["0.0.0.0name"] += 1
        entry = entry.removeprefix(_HOSTS_FILE_ADDRESS)
    if entry[:1] in (".", "*"):
        oddities["leading dot"] += 1
        entry = entry.lstrip("*").lstrip(".")
    if _is_ip(entry):
        oddities["IP address"] += 1
        return f"[{entry}]" if ":" in entry else entry
    if "xn--" in entry or not entry.isascii():
        oddities["internationalized name"] += 1
    if "/" in entry.removeprefix("http://").removeprefix("https://").rstrip("/"):
        # Taken for its host, a line such as `docs.google.com/a` would block the whole of it.
        oddities["refused: path in a list of hosts"] += 1
        return ""
    return entry


def _address_entry(entry: str, oddities: Counter[str]) -> str:
    """A line of a `urls` file; "" if it is none."""
    if "#" in entry:
        oddities["fragment left out"] += 1
    return entry


def _is_ip(text: str) -> bool:
    if not text[-1:].isdigit() and ":" not in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
