"""What the user may name as a checkpoint: a model folder, or a run, which stands for its newest valid checkpoint."""

from pathlib import Path

from cli.console import say


def model_folder(path: Path) -> Path:
    """`path` itself, or the newest valid checkpoint of the run folder `path`. Raises TrainError if a run has none."""
    if not (path / "checkpoints").is_dir():
        return path
    from durable.errors import with_hint
    from train.checkpoint import newest_valid
    from train.errors import TrainError

    newest = newest_valid(path, say)
    if newest is None:
        error = TrainError(f"{path} holds no valid checkpoint, expected {path}/checkpoints/step-…")
        raise with_hint(error, "let `symbert pretrain` reach its first checkpoint")
    return newest.folder


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does."""
    run = checkpoint.resolve().parents[1]
    return run if (run / "recipe.toml").is_file() and (run / "metrics.jsonl").is_file() else None
