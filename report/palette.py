"""Colours, markers and dashes of what the charts show.

Every colour has a light and a dark form of the same hue; both keep a contrast of at least 4.5 to their background.
Colour never stands alone: an operator has its own marker and its name at the end of its line, settings of one operator
differ in dashes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One role in the charts, by the name of its CSS variable."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1b1f24", "#e8eaed")
MUTED = Colour("muted", "#59616b", "#a9b1bb")
GRID = Colour("grid", "#d5dae0", "#3a4048")
SURFACE = Colour("surface", "#fefefe", "#1d2126")

STYLES = {
    "original": Colour("original", "#0b5fa5", "#6db3f2"),
    "symmetric": Colour("symmetric", "#b8430c", "#ff9d5c"),
    "pairwise": Colour("pairwise", "#0f7a5f", "#4fd1a5"),
    "shared": Colour("shared", "#a2307a", "#f28cc6"),
    "additive": Colour("additive", "#7a5b02", "#e0c158"),
    "mixed": Colour("mixed", "#5a4ab2", "#b3a6ff"),
    "other": Colour("other", "#4b5564", "#c4cad3"),
    "total": Colour("total", "#66707d", "#98a2ae"),
    "dropped": Colour("dropped", "#b0432e", "#ff8f7a"),
    "kept": Colour("kept", "#0d7b5d", "#4ecfa3"),
}
MARKERS = {"original": "o", "symmetric": "s", "pairwise": "^", "shared": "D", "additive": "v", "mixed": "P"}
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def colour_of(style: str) -> Colour:
    """The colour of an operator or of a bar's part; unknown ones share one."""
    return STYLES.get(style, STYLES["other"])


def marker_of(style: str) -> str:
    """The matplotlib marker of an operator."""
    return MARKERS.get(style, "X")


def colours() -> tuple[Colour, ...]:
    """Every colour."""
    return (INK, MUTED, GRID, SURFACE, *STYLES.values())
