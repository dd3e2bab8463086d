"""What the user may name as a checkpoint: a model folder, or a run, which stands for its newest valid checkpoint."""

from pathlib import Path

from cli.console import say


def model_folder(path: Path) -> Path:
    """`path` itself, or the newest valid checkpoint of the run folder `path`; raises as train.checkpoint's does."""
    from train import checkpoint

    return checkpoint.model_folder(path, say)


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does."""
    run = checkpoint.resolve().parents[1]
    return run if (run / "recipe.toml").is_file() and (run / "metrics.jsonl").is_file() else None
