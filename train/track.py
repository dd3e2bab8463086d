"""A mirror of metrics.jsonl for programs that draw curves; metrics.jsonl stays the truth.

The mirror is made anew from metrics.jsonl whenever a run is started or resumed with it, so that it holds every point
once, also those of invocations that had no mirror or were killed.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from durable.errors import with_hint
from train.errors import TrainError

Track = Literal["tensorboard"]
FOLDER = "tensorboard"
NO_SCALARS = frozenset({"kind", "step", "samples"})


class TensorBoard:
    """Event files in RUN/tensorboard, one event a row; tags are `train/loss`, `evaluation/…`, `attention/…/layer-0`.

    Points carry the step as their place. The wall time of a point that was written before a resumption is that of the
    resumption. Raises TrainError if the extra is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ModuleNotFoundError as error:
            raise with_hint(
                TrainError(f"{error.name} is not installed, expected the extra `tensorboard`"),
                "pip install 'symbert[tensorboard]', or leave out --track",
            ) from None
        self._event, self._summary, self._writer_class = event_pb2.Event, summary_pb2.Summary, EventFileWriter
        self._folder = run / FOLDER

    def open(self) -> None:
        """Begin with empty files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = self._writer_class(str(self._folder))

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
            event = self._event(wall_time=time.time(), step=row["step"], summary=self._summary(value=values))
            self._writer.add_event(event)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


TRACKERS = {"tensorboard": TensorBoard}


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Tag and value of each number of a row; a list has one for each layer, and what is None is left out."""
    for name, value in row.items():
        if name in NO_SCALARS:
            continue
        if isinstance(value, list):
            values = {f"{row['kind']}/{name}/layer-{layer}": one for layer, one in enumerate(value)}
        else:
            values = {f"{row['kind']}/{name}": value}
        yield from ((tag, float(one)) for tag, one in values.items() if one is not None)
