"""English prose that every machine with Python has: the documentation strings of its standard library.

Source files are parsed, none is imported. What is left of a documentation string is its running text: examples,
tables, lists of parameters and signatures go, line breaks within a paragraph become spaces.
"""

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PAGES = f"https://docs.python.org/{VERSION}/library"
SOURCE = f"https://github.com/python/cpython/blob/{VERSION}/Lib"

# Modules inside packages that have a page of their own; the others stand on the page of the package.
PAGES_OF_SUBMODULES = frozenset({
    "collections.abc", "concurrent.futures", "curses.ascii", "curses.panel", "email.charset", "email.contentmanager",
    "email.encoders", "email.errors", "email.generator", "email.header", "email.headerregistry", "email.iterators",
    "email.message", "email.mime", "email.parser", "email.policy", "email.utils", "html.entities", "html.parser",
    "http.client", "http.cookiejar", "http.cookies", "http.server", "importlib.metadata", "importlib.resources",
    "importlib.resources.abc", "logging.config", "logging.handlers", "multiprocessing.shared_memory",
    "tkinter.colorchooser", "tkinter.dnd", "tkinter.font", "tkinter.messagebox", "tkinter.scrolledtext",
    "tkinter.tix", "tkinter.ttk", "unittest.mock", "urllib.error", "urllib.parse", "urllib.request",
    "urllib.robotparser", "xml.dom", "xml.dom.minidom", "xml.dom.pulldom", "xml.etree.ElementTree", "xml.sax",
    "xml.sax.handler", "xmlrpc.client", "xmlrpc.server",
})  # fmt: skip
PAGES_OF_OTHER_NAMES = {
    "_collections_abc": "collections.abc", "_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io",
    "_strptime": "time", "_threading_local": "threading", "cProfile": "profile", "encodings": "codecs",
    "genericpath": "os.path", "ntpath": "os.path", "posixpath": "os.path", "tkinter.commondialog": "dialog",
    "tkinter.filedialog": "dialog", "tkinter.simpledialog": "dialog", "xml.sax.saxutils": "xml.sax.utils",
    "xml.sax.xmlreader": "xml.sax.reader",
}  # fmt: skip
# Documented nowhere, or as programs only, whose modules nobody is meant to import.
WITHOUT_PAGE = frozenset({
    "antigravity", "idlelib", "lib2to3", "nturl2path", "opcode", "pydoc_data", "sre_compile", "sre_constants",
    "sre_parse", "this", "turtledemo",
})  # fmt: skip
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})

MIN_WORDS = 12
MIN_LETTERS_AND_SPACES = 0.85
NOT_PROSE = re.compile(r"^(\s|[-*+>|]|\d+[.)]|\.\.\.|:\w+|.*\S {3,}\S|.*>>>)")
ROLE = re.compile(r":[a-z:]+:`~?([^`]*)`")


class DocumentationError(ValueError):
    """This Python holds no source of its standard library."""


@dataclass(frozen=True)
class Text:
    """The prose of one module."""

    module: str
    url: str
    paragraphs: tuple[str, ...]


def standard_library(split: Callable[[str], Iterator[str]] | None = None) -> list[Text]:
    """Every module's prose, each paragraph once, in an order that mixes the subjects and never changes.

    `split` makes paragraphs of a documentation string: `paragraphs_of` unless given. Raises DocumentationError if the
    library is not there as source files.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    texts = []
    for path in _sources(folder):
        paragraphs = tuple(dict.fromkeys(p for p in _paragraphs_in(path, split or paragraphs_of) if p not in seen))
        seen.update(paragraphs)
        if paragraphs:
            module = _module_name(path.relative_to(folder))
            texts.append(Text(module, url_of(module, path.relative_to(folder)), paragraphs))
    if not texts:
        raise DocumentationError(f"{folder} holds no source of Python's standard library with documentation strings")
    return sorted(texts, key=lambda text: hashlib.sha256(text.module.encode()).digest())


def url_of(module: str, path: Path) -> str:
    """The page of docs.python.org where a module is documented, or its source where there is none."""
    name = module
    while name:
        if name in PAGES_OF_OTHER_NAMES:
            return f"{PAGES}/{PAGES_OF_OTHER_NAMES[name]}.html"
        public = "." not in name and not (name.startswith("_") and name != "__future__") and name not in WITHOUT_PAGE
        if public or name in PAGES_OF_SUBMODULES:
            return f"{PAGES}/{name.lower()}.html"
        name = name.rpartition(".")[0]
    return f"{SOURCE}/{path.as_posix()}"


def paragraphs_of(documentation: str) -> Iterator[str]:
    """The paragraphs of a documentation string that are running English text, each on one line."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(documentation)):
        lines = textwrap.dedent(block).split("\n")
        if any(NOT_PROSE.match(line) for line in lines):
            continue
        text = ROLE.sub(r"\1", " ".join(" ".join(lines).split())).replace("``", "")
        letters = sum(character.isalpha() or character == " " for character in text)
        if len(text.split()) >= MIN_WORDS and text[-1] in ".!?:)" and letters >= MIN_LETTERS_AND_SPACES * len(text):
            yield text


def blocks_of(documentation: str) -> Iterator[str]:
    """Everything in a documentation string, examples, tables and signatures too; each block on one line."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(documentation)):
        if block.strip():
            yield " ".join(block.split())


def _sources(folder: Path) -> Iterator[Path]:
    for name in sorted(sys.stdlib_module_names):
        if (folder / f"{name}.py").is_file():
            yield folder / f"{name}.py"
        elif (folder / name / "__init__.py").is_file():
            for path in sorted((folder / name).rglob("*.py")):
                if not TEST_FOLDERS & set(path.relative_to(folder).parts):
                    yield path


def _paragraphs_in(path: Path, split: Callable[[str], Iterator[str]]) -> Iterator[str]:
    for documentation in _documentation(ast.parse(path.read_bytes())):
        yield from split(documentation)


def _documentation(node: ast.AST) -> Iterator[str]:
    """Documentation strings in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        documentation = ast.get_docstring(node, clean=False)
        if documentation:
            yield documentation
    if not isinstance(node, ast.expr):
        for child in ast.iter_child_nodes(node):
            yield from _documentation(child)


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")
