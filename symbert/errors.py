"""What the model refuses. It lives here because a checkpoint carries this package's modules and no other."""

from difflib import get_close_matches


class SymbertError(ValueError):
    """A configuration or a call that the model cannot serve."""


def unknown_name(what: str, name: str, known: list[str]) -> SymbertError:
    """The refusal of a name that is not among `known`, with the nearest one as its hint."""
    return _hinted(f"`{name}` is not {what}; expected one of {', '.join(known)}", name, known)


def unknown_field(name: str, known: list[str]) -> SymbertError:
    """The refusal of a field that no configuration has, with the nearest one as its hint."""
    return _hinted(f"`{name}` is not a field of SymbertConfig", name, known)


def _hinted(message: str, name: str, known: list[str]) -> SymbertError:
    error = SymbertError(message)
    for near in get_close_matches(name, known, n=1):
        error.add_note(f"did you mean `{near}`?")
    return error
