"""What a corpus would be, from the start of every file: funnel, tokens, disk, memory and hours; writes nothing.

The sample is the complete lines in the first bytes of every file (of a Parquet file its first rows), so it is a sample
of documents only as far as the order within files is random, which it is in OSCAR. Totals are scaled up by bytes of
content. Intervals come from a bootstrap over blocks of 100 neighbouring documents, since neighbours may be alike; the
blocks overlap, which makes better use of a small sample than blocks side by side.
"""

import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from durable.errors import with_hint
from durable.machine import available_cores
from durable.tasks import Tell, Watch, Work
from durable.workers import Supervisor
from oscar_prep.annotate import annotate
from oscar_prep.damage import input_size
from oscar_prep.errors import PrepareError
from oscar_prep.filters import judge, rules_of
from oscar_prep.inputs import InputFile
from oscar_prep.layout import Documents
from oscar_prep.parquet import SUFFIX, ParquetReader, Rows
from oscar_prep.parse import parse
from oscar_prep.plan import Plan
from oscar_prep.prepare import Running
from oscar_prep.read import Block, LongLine, StartReader
from oscar_prep.tokenize import Encoder
from oscar_prep.worker import set_up_process

BLOCK_DOCUMENTS = 100
FEWEST_BLOCKS = 5
DRAWS = 2000
NORMAL_95 = 1.96
# The variance of the kept share is moderated towards that of independent documents, as if so many blocks more had
# shown it: of a dozen blocks alone the variance would be known to no better than a half.
PRIOR_BLOCKS = 20
# Compressed bytes that documents/*.parquet takes for a document, measured on OSCAR-shaped records.
PARQUET_BYTES = 100
INVALID, KEPT = -2, -1


@dataclass(frozen=True)
class Start:
    """What was seen at the start of one file: arrays with an entry for every line that is not blank."""

    verdict: np.ndarray
    """INVALID, KEPT, or the index of the first rule that the document fails."""
    tokens: np.ndarray
    line_bytes: np.ndarray
    content_bytes: float
    """Estimated decompressed size of the whole file; 0 if nothing could be decompressed."""
    file_bytes: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float


def estimate(plan: Plan, running: Running, share: float) -> dict[str, Any] | None:
    """Judge and tokenize at most `share` of the bytes of every file; returns what to expect of all of them.

    The budgets are not applied. None if a stop request ended the run early. Raises PrepareError if a setting lacks
    its model, if a file is damaged, or if too few documents were read to say anything.
    """
    plan.sources.check(plan.configuration)
    supervisor: Supervisor[InputFile, Start] = Supervisor(
        start_worker, (replace(plan, files=()), share), running.workers or available_cores(), Watch(stop=running.stop)
    )
    starts: list[Start] = []
    done, size = 0, sum(input_size(file.path) for file in plan.files)
    for outcome in supervisor.run(plan.files):
        if outcome.result is None:
            raise outcome.error or PrepareError(f"{outcome.argument.path} kills the process that reads it")
        starts.append(outcome.result)
        done += outcome.result.file_bytes
        running.progress(done * share, size * share, {})
    if running.stop is not None and running.stop.requested:
        return None
    return summarise(plan, running, sorted(starts, key=lambda start: start.file_bytes), share)


def start_worker(setting: tuple[Plan, float]) -> Work[InputFile, Start]:
    """What each worker process does once; returns what it does for each file."""
    plan, share = setting
    set_up_process()
    rules = rules_of(plan.configuration)
    annotators = plan.sources.annotators(plan.configuration)
    layout = plan.configuration.layout
    encoder = Encoder.of(plan.tokenizer)

    def judged(blocks: Iterable[Block | LongLine | Rows]) -> list[np.ndarray]:
        """Verdict, tokens and bytes of every line."""
        columns: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int64),) * 3]
        for block in blocks:
            parsed = parse(block, layout)
            documents, _notes = annotate(parsed.documents, annotators)
            failed = judge(documents.metadata, rules)
            verdict = np.where(failed.any(axis=0), failed.argmax(axis=0), KEPT)
            kept = np.flatnonzero(verdict == KEPT)
            tokens = np.zeros(len(verdict), np.int64)
            tokens[kept] = encoder.encode(documents.take(kept).texts)[1]
            bad = np.array([max(bad.size, 1) for bad in parsed.bad], np.int64)
            columns.append((verdict, tokens, _line_bytes(block, documents)))
            columns.append((np.full(len(bad), INVALID), np.zeros(len(bad), np.int64), bad))
        return [np.concatenate(column) for column in zip(*columns, strict=True)]

    def work(file: InputFile, _: Tell) -> Start:
        began = time.process_time()
        if file.path.suffix == SUFFIX:
            with ParquetReader(file, layout) as rows:
                verdict, tokens, sizes = judged(rows.first(share))
                content = float(sizes.sum()) * rows.rows / max(len(sizes), 1)
        else:
            start = StartReader(file.path, share)
            verdict, tokens, sizes = judged(start.blocks())
            content = start.content_bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        size = input_size(file.path)
        return Start(verdict, tokens, sizes, content, size, time.process_time() - began, peak)

    return work


def summarise(plan: Plan, running: Running, starts: Sequence[Start], share: float) -> dict[str, Any]:
    """What to expect of the whole input, from the starts of its files."""
    verdict = np.concatenate([start.verdict for start in starts])
    tokens = np.concatenate([start.tokens for start in starts])
    sizes = np.concatenate([start.line_bytes for start in starts])
    if len(verdict) < FEWEST_BLOCKS * BLOCK_DOCUMENTS:
        raise with_hint(
            PrepareError(f"{len(verdict)} documents in the first {share:g} of the input are too few to estimate from"),
            f"give a larger --estimate: {FEWEST_BLOCKS * BLOCK_DOCUMENTS} documents are the least",
        )
    content = _whole_content(starts)
    read = min(sizes.sum() / content, 1.0)
    kept_share, token_rate = intervals(verdict == KEPT, tokens, sizes, read)
    total = Interval(*(rate * content for rate in (token_rate.estimate, token_rate.low, token_rate.high)))
    documents = len(verdict) / read
    configuration, workers = plan.configuration, running.workers or available_cores()
    names = [rule.name for rule in rules_of(configuration)]
    dropped = {name: float((verdict == index).mean()) for index, name in enumerate(names)}
    row_bytes = plan.tokenizer.dtype.itemsize * configuration.sequence_length
    samples = total.estimate / configuration.sequence_length
    return {
        "share_read": float(read),
        "documents_read": len(verdict),
        "documents": round(documents),
        "kept_share": asdict(kept_share),
        "dropped_share": dropped,
        "invalid_share": float((verdict == INVALID).mean()),
        "tokens": {name: round(value) for name, value in asdict(total).items()},
        "samples": round(samples),
        "disk_bytes": round(samples * row_bytes + documents * PARQUET_BYTES),
        "memory_bytes": max(start.peak_bytes for start in starts) * workers,
        "workers": workers,
        "hours": sum(start.seconds for start in starts) / read / workers / 3600,
    }


def intervals(kept: np.ndarray, tokens: np.ndarray, sizes: np.ndarray, read: float) -> tuple[Interval, Interval]:
    """Kept share, and tokens per byte of content, each with its 95 % interval; `read` is the share that was read.

    What was read is known, so the variance shrinks by 1 - read.
    """
    count = len(kept)
    blocks = max(round(count / BLOCK_DOCUMENTS), FEWEST_BLOCKS)
    columns = [_ring_sums(column) for column in (kept, tokens, sizes)]
    drawn = np.random.default_rng(0).integers(0, count, (DRAWS, blocks))
    kept_sum, token_sum, size_sum = (column[drawn].sum(axis=1) for column in columns)
    known = (1 - read) * blocks / (blocks - 1)
    share = float(kept.mean())
    independent = share * (1 - share) / count
    variance = (kept_sum / (blocks * BLOCK_DOCUMENTS)).var()
    moderated = ((blocks - 1) * variance + PRIOR_BLOCKS * independent) / (blocks - 1 + PRIOR_BLOCKS)
    half = NORMAL_95 * float(np.sqrt(moderated * known))
    rate = float(tokens.sum() / sizes.sum())
    token_half = NORMAL_95 * float(np.sqrt((token_sum / size_sum).var() * known))
    return (
        Interval(share, max(share - half, 0.0), min(share + half, 1.0)),
        Interval(rate, max(rate - token_half, 0.0), rate + token_half),
    )


def _ring_sums(values: np.ndarray) -> np.ndarray:
    """The sum over each block of neighbours, one beginning at every document, the last running on into the first."""
    sums = np.concatenate([[0], np.cumsum(np.concatenate([values, values[: BLOCK_DOCUMENTS - 1]]), dtype=np.int64)])
    return sums[BLOCK_DOCUMENTS:] - sums[:-BLOCK_DOCUMENTS]


def _whole_content(starts: Sequence[Start]) -> float:
    """Decompressed bytes of all files; a file whose start gave nothing is taken to compress like the others."""
    known = [start for start in starts if start.content_bytes]
    ratio = sum(start.content_bytes for start in known) / sum(start.file_bytes for start in known)
    return sum(start.content_bytes or start.file_bytes * ratio for start in starts)


def _line_bytes(block: Block | LongLine | Rows, documents: Documents) -> np.ndarray:
    """Bytes of the line of each document; of a row of Parquet, which has none, those of its content."""
    if isinstance(block, Block):
        sizes = np.fromiter(map(len, block.lines), np.int64, len(block.lines)) + 1
        return sizes[documents.metadata.column("line").to_numpy() - block.first_line]
    return documents.sizes + 1
