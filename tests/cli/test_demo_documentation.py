import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from cli.demo_documentation import VERSION, Text, paragraphs_of, url_of

DOCUMENTATION = """Parse arguments :class:`~argparse.Namespace` into an object, and return
    that object with whatever was left over.

    >>> parse("the quick brown fox jumps over the lazy dog and then it sleeps.")
    'an example'

    Too short to be kept.

    :param name: what the parameter is for is not running text, however long it goes on and on.

    - an item of a list, which is not running text either, however long it goes on and on.

        A paragraph that stands further in than the others is as good as any other, and is kept whole.

    name        what it is for      another column of something that looks like a table to all of us.
"""


def test_running_text_is_kept_and_the_rest_left_out() -> None:
    assert list(paragraphs_of(DOCUMENTATION)) == [
        "Parse arguments argparse.Namespace into an object, and return that object with whatever was left over.",
        "A paragraph that stands further in than the others is as good as any other, and is kept whole.",
    ]


@pytest.mark.parametrize(
    ("module", "page"),
    [
        ("argparse", "argparse"),
        ("email", "email"),
        ("email.message", "email.message"),
        ("email._header_value_parser", "email"),
        ("xml.etree.ElementTree", "xml.etree.elementtree"),
        ("xml.etree.ElementPath", "xml"),
        ("xml.sax.saxutils", "xml.sax.utils"),
        ("posixpath", "os.path"),
        ("_pydecimal", "decimal"),
        ("cProfile", "profile"),
        ("__future__", "__future__"),
        ("concurrent.futures.thread", "concurrent.futures"),
    ],
)
def test_a_module_stands_on_the_page_where_it_is_documented(module: str, page: str) -> None:
    assert url_of(module, Path("x.py")) == f"https://docs.python.org/{VERSION}/library/{page}.html"


@pytest.mark.parametrize("module", ["_markupbase", "idlelib.run", "sre_parse", "turtledemo.tree"])
def test_a_module_without_a_page_stands_where_its_source_is(module: str) -> None:
    path = PurePosixPath(*module.split(".")).with_suffix(".py")
    assert url_of(module, Path(path)) == f"https://github.com/python/cpython/blob/{VERSION}/Lib/{path}"


@pytest.mark.slow
def test_the_library_gives_hundreds_of_texts_in_lines_of_english(library: list[Text]) -> None:
    assert len(library) > 200
    paragraphs = [paragraph for text in library for paragraph in text.paragraphs]
    assert sum(map(len, paragraphs)) > 400_000
    assert not any("\n" in paragraph or "\t" in paragraph or ">>>" in paragraph for paragraph in paragraphs)


@pytest.mark.slow
def test_no_paragraph_occurs_twice_and_no_module_either(library: list[Text]) -> None:
    paragraphs = [paragraph for text in library for paragraph in text.paragraphs]
    assert len(set(paragraphs)) == len(paragraphs)
    assert len({text.module for text in library}) == len(library)


@pytest.mark.slow
def test_pythons_own_tests_are_left_out(library: list[Text]) -> None:
    assert not any({"test", "tests", "idle_test"} & set(text.module.split(".")) for text in library)


@pytest.mark.slow
def test_reading_the_library_imports_none_of_it() -> None:
    script = (
        "import sys\n"
        "from cli.demo_documentation import standard_library\n"
        "before = set(sys.modules)\n"
        "library = standard_library()\n"
        "imported = {text.module for text in library} & (set(sys.modules) - before)\n"
        "assert not imported & {'turtle', 'tkinter', 'idlelib', 'antigravity', 'this', 'unittest.mock'}, imported\n"
        "assert len(imported) < 5, imported\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
