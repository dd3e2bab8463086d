"""Which seeds are trained together: the cells of one checkpoint and task that are not there yet.

What is trained together decides a score's last digits and the dropout that is drawn. So cells that were together once
are so again: a kill between two cells of one stack leaves a folder that ends with the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from durable.board import Board, Failure
from train.errors import TrainError
from train.glue.cells import TIMING, TOGETHER, Cell, read_cell, write_cell
from train.glue.failures import forget_failure, keep_failure
from train.glue.finetune import Finetuned
from train.glue.protocol import Protocol
from train.glue.read import TaskData
from train.glue.start import started_from

Results = Sequence[Finetuned | TrainError]
"""What became of every cell of a stack."""


@dataclass(frozen=True)
class Stack:
    """Cells of one checkpoint and one task, by seed."""

    cells: tuple[Cell, ...]
    wanted: frozenset[Cell]
    """Those that are to be kept; the others were finished before and keep them company."""

    @classmethod
    def alone(cls, cell: Cell) -> "Stack":
        return cls((cell,), frozenset([cell]))

    @property
    def name(self) -> str:
        first, *others = self.cells
        return ", ".join([first.name, *(str(cell.seed) for cell in others)])


def stacks_of(cells: Sequence[Cell], out: Path, protocol: Protocol) -> list[Stack]:
    """Divide cells that are to be trained.

    One that starts from another cell's model stays alone: it waits for that cell, and may wait in vain.
    """
    together: dict[tuple[str, str, tuple[int, ...]], list[Cell]] = {}
    recorded: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for cell in cells:
        kind = cell.subject.weights, cell.task.name
        if kind not in recorded:
            recorded[kind] = _recorded(cell, out)
        company = next((seeds for seeds in recorded[kind] if cell.seed in seeds), ())
        alone = started_from(cell, protocol) is not None
        together.setdefault((*kind, (cell.seed,) if alone else company), []).append(cell)
    return [
        Stack(
            tuple(replace(members[0], seed=seed) for seed in company or sorted(cell.seed for cell in members)),
            frozenset(members),
        )
        for (_, _, company), members in together.items()
    ]


def _recorded(cell: Cell, out: Path) -> list[tuple[int, ...]]:
    """The seeds that were trained together, of the finished cells of this checkpoint and task."""
    paths = sorted(cell.path(out).parent.glob(f"{cell.task.name}-*.json"))
    return [tuple(read_cell(path).get(TIMING, {}).get(TOGETHER, ())) for path in paths]


class Harvest:
    """What has become of the cells of a run, each kept by itself, whatever it was trained with."""

    def __init__(
        self,
        out: Path,
        rows: tuple[Mapping[str, TaskData], Mapping[str, TaskData]],
        protocol: Protocol,
        notice: Callable[[str], None],
    ) -> None:
        """`rows` are the data by task, and the test sets of those that are to be predicted."""
        (self._data, self._tests), self._out, self._protocol, self._notice = rows, out, protocol, notice
        self._board = Board(out)
        self.trained = 0
        self.failed: dict[str, str] = {}

    def take(self, stack: Stack, results: Results) -> None:
        """Keep what became of a stack."""
        if len(stack.cells) > 1 and any(isinstance(r, Finetuned) and len(r.seeds_together) == 1 for r in results):
            self._notice(f"{stack.name}: too much for the memory at once, trained one after another")
        for cell, result in zip(stack.cells, results, strict=True):
            if cell not in stack.wanted:
                continue
            if isinstance(result, TrainError):
                self._fail(cell, str(result))
                continue
            rows = self._data[cell.task.name], self._tests.get(cell.task.name)
            write_cell(cell, self._out, rows, self._protocol.of_task(cell.task), result)
            forget_failure(cell, self._out)
            self._board.forgive(board_key(cell))
            self.trained += 1

    def fail(self, stack: Stack, reason: str) -> None:
        """Remember why a stack was not finished."""
        for cell in stack.cells:
            if cell in stack.wanted:
                self._fail(cell, reason)

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.name] = reason
        self._board.fail(board_key(cell), Failure(reason))
        keep_failure(cell, self._out, self._data[cell.task.name], self._protocol.of_task(cell.task), reason)


def board_key(cell: Cell) -> str:
    """A cell's name on the board of its folder."""
    return f"{cell.subject.short}-{cell.task.name}-{cell.seed}"
