"""`symbert env`: the versions and the machine, for bug reports and run records."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from cli.console import AsJson, print_json
from durable import __version__

LIBRARIES = (
    "torch", "transformers", "tokenizers", "nanotoken", "msgspec", "datasets", "pyarrow", "pydantic",
    "safetensors", "numpy", "scikit-learn", "scipy", "fasttext", "kenlm", "can_ada", "ray", "tensorboard",
)  # fmt: skip


def env(as_json: AsJson = False) -> None:
    """Print the versions of Python and the libraries, and the machine."""
    facts: dict[str, str | None] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "symbert": __version__,
    }
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            print(f"{name:<14}{value or 'not installed'}")
