"""The files of GLUE's tasks in a folder: which layout a task is in, and what is not there."""

from collections.abc import Sequence
from pathlib import Path

from durable.errors import with_hint
from train.errors import TrainError
from train.glue.tasks import Layout, Task

HUB_DATASET = "nyu-mll/glue"


def check_files(tasks: Sequence[Task], data_dir: Path, *, with_tests: bool = False) -> None:
    """Raises TrainError, naming every task of which a file is not in `data_dir`; reads none."""
    errors: dict[Task, TrainError] = {}
    for task in tasks:
        folder = task_folder(task, data_dir)
        try:
            layout_of(task, folder)
            if with_tests:
                find_test_files(task, data_dir)
        except TrainError as error:
            errors[task] = error
    if not errors:
        return
    first, *others = errors
    refusal = errors[first]
    if others:
        refusal = TrainError(f"{data_dir} lacks files of {', '.join(task.folder for task in errors)}: {refusal}")
    if there := [task.name for task in tasks if task not in errors]:
        with_hint(refusal, f"--tasks {','.join(there)} takes those that are there")
    raise refusal


def task_folder(task: Task, data_dir: Path) -> Path:
    """Where a task's files are. Raises TrainError if `data_dir` is no folder."""
    if not data_dir.is_dir():
        problem = "is a file" if data_dir.exists() else "does not exist"
        raise with_hint(
            TrainError(f"{data_dir} {problem}, expected a folder with the GLUE tasks as TSV files"),
            f"leave --data-dir out to read {HUB_DATASET} from the hub",
        )
    return data_dir / task.folder


def layout_of(task: Task, folder: Path) -> Layout:
    """The first of the task's layouts whose files are all there. Raises TrainError if there is none."""
    wanted = [_needed(layout) for layout in task.layouts]
    for layout, files in zip(task.layouts, wanted, strict=True):
        if all((folder / file).is_file() for file in files):
            return layout
    if not folder.is_dir():
        near = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        error = TrainError(f"{folder} does not exist, expected {' and '.join(wanted[0])} in it")
        raise with_hint(error, f"{folder.parent} holds {', '.join(near) or 'no folder'}")
    missing = [file for file in wanted[0] if not (folder / file).is_file()]
    raise TrainError(f"{folder / missing[0]} does not exist, expected {' and '.join(wanted[0])} in {folder}")


def find_test_files(task: Task, data_dir: Path) -> dict[str, Path]:
    """File of the leaderboard → file of the test set. Raises TrainError if one is not there."""
    folder = task_folder(task, data_dir)
    others = [layout.test for layout in task.layouts if layout.test]
    found = {}
    for name, file in task.test.items():
        names = [file, *others]
        there = [folder / name for name in names if (folder / name).is_file()]
        if not there:
            known = f" there or in {' or '.join(others)}" if others else ""
            raise TrainError(f"{folder / file} does not exist, expected the test set of {task.name}{known}")
        found[name] = there[0]
    return found


def _needed(layout: Layout) -> list[str]:
    return sorted({*layout.files.values(), layout.held_out} - {""})
