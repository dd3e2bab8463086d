import pytest

from cli.demo_documentation import Text, standard_library


@pytest.fixture(scope="session")
def library() -> list[Text]:
    """The texts of the standard library's documentation; reading them takes seconds."""
    return standard_library()
