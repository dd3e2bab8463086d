"""Pictures of what `symbert analyze` finds: a heat map of layers and heads for each quantity."""

from pathlib import Path
from typing import Any

from durable.errors import with_hint
from durable.files import whole_file
from report.errors import ReportError

# Title and fixed colour range of each quantity; None where the data decide.
PANELS: dict[str, tuple[str, float | None, float | None]] = {
    "symmetry": ("symmetry score", -1, 1),
    "distance_from_identity": ("distance of U from identity", 0, None),
    "entropy": ("attention entropy, nats", 0, None),
    "asymmetry": ("asymmetry of attention", 0, 2**0.5),
}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw one heat map (layer down, head across) for each quantity found; the suffix of `path` names the format.

    Raises ReportError where matplotlib is missing or has no such format.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        error = ReportError("matplotlib is not installed, expected the extra `report`")
        raise with_hint(error, "pip install 'symbert[report]'") from None
    figure = Figure(figsize=(1 + 3.2 * len(found["means"]), 3.6), layout="constrained")
    if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise ReportError(f"{path} is no picture that can be drawn, expected a name in .svg, .png or .pdf")
    for axes, name in zip(figure.subplots(1, len(found["means"]), squeeze=False)[0], found["means"], strict=True):
        title, least, most = PANELS[name]
        heads = max(len(layer["heads"]) for layer in found["layers"])
        rows = [[head.get(name, float("nan")) for head in layer["heads"]] for layer in found["layers"]]
        grid = [row or [float("nan")] * heads for row in rows]
        image = axes.imshow(
            grid, vmin=least, vmax=most, aspect="auto", cmap="RdBu_r" if name == "symmetry" else "viridis"
        )
        axes.set(title=title, xlabel="head", ylabel="layer")
        figure.colorbar(image, ax=axes)
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip("."))
