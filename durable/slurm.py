"""The text that submits work to Slurm: an array of slices and a last job that finishes, or one job of several ranks.

Slurm keeps no state for us: what is done is in the output folder, so the text can be made anew at any time, and then
holds only what is left.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FIRST_PORT, PORTS = 20_000, 12_000
"""Where the ranks of a job may meet; from 32,768 on Linux gives a port to any connection that names none."""
SRUN = 'srun --cpus-per-task="$SLURM_CPUS_PER_TASK"'
"""Since Slurm 22.05 srun does not take it over from sbatch by itself, and would bind a task to one core."""


@dataclass(frozen=True)
class Resources:
    """What each job asks of Slurm."""

    cpus: int = 1
    gpus: int = 0
    memory: str = "4G"
    time: str = "24:00:00"
    at_a_time: int | None = None
    """Slices that may run at once; None is as many as Slurm lets."""
    directives: tuple[str, ...] = ()
    """Further directives, such as `--partition=long`."""


@dataclass(frozen=True)
class Division:
    """A run in `count` slices, of which `missing` have something left to do."""

    command: str
    """Name of the symbert command."""
    arguments: Sequence[str]
    count: int
    missing: Sequence[int]
    folder: str
    """Where relative paths begin."""


@dataclass(frozen=True)
class Job:
    """A run of several processes that meet: one a GPU, or one a node without GPUs."""

    command: str
    """Name of the symbert command."""
    arguments: Sequence[str]
    folder: str
    """Where relative paths begin."""
    nodes: int


def job_text(job: Job, resources: Resources) -> str:
    """A shell script that submits the job; GPUs and memory are those of a node, cores those of a process.

    Nothing in it may hold a line break, as in `sbatch_text`.
    """
    _assert_lines(job, resources)
    lines = [
        "#!/bin/bash",
        f"# symbert {job.command}, nodes x ranks: {job.nodes} x {max(1, resources.gpus)}.",
        f"# `symbert slurm {job.command}` with the same arguments says, at any time, whether something is left.",
        "set -euo pipefail",
        "",
        "job=$(sbatch --parsable <<'JOB'",
        *_ranks(job, resources),
        "JOB",
        ")",
        'echo "submitted $job"',
    ]
    return "\n".join(lines) + "\n"


def _ranks(job: Job, resources: Resources) -> list[str]:
    directives = [
        f"#SBATCH --nodes={job.nodes}",
        f"#SBATCH --ntasks-per-node={max(1, resources.gpus)}",
        *([f"#SBATCH --gpus-per-node={resources.gpus}"] if resources.gpus else []),
        "#SBATCH --signal=USR1@300",
        "#SBATCH --requeue",
    ]
    return [
        *_head(job, resources, directives, "%x-%j.log"),
        "",
        "# Where the ranks meet: the first one's node, at a port of this job's own, below those that Linux hands out.",
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
        "trap : TERM USR1  # this shell outlives the signal, to ask for another turn",
        "# Ranks that are stopped all exit with 75, the highest code and so srun's own, but not at the same moment: to",
        "# srun the first one's would be a bad exit, for which it kills the others. A rank that dies leaves the others",
        "# waiting for it: --wait ends them two minutes later.",
        f"{SRUN} --kill-on-bad-exit=0 --wait=120 \\",
        # Every task sees all GPUs of its node, as NCCL wants it, and takes the one of its local rank.
        f"    {'--gpu-bind=none ' if resources.gpus else ''}{_command(job)}",
        "code=$?",
        'if [ "$code" -eq 75 ]; then  # saved, not finished',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def sbatch_text(division: Division, resources: Resources) -> str:
    """A shell script that submits the slices that are missing, and after them the job that finishes.

    Nothing in it may hold a line break: that would end a directive, or the text of a job.
    """
    _assert_lines(division, resources)
    name = f"symbert slurm {division.command}"
    lines = [
        "#!/bin/bash",
        f"# symbert {division.command} in {division.count} slices; {len(division.missing)} have something left to do.",
        f"# `{name}` with the same arguments prints, at any time, what is then left.",
        "set -euo pipefail",
        "",
    ]
    if division.missing:
        lines += ["slices=$(sbatch --parsable <<'SLICE'", *_slice(division, resources), "SLICE", ")"]
    after = ' --dependency="afterany:${slices%%;*}"' if division.missing else ""
    lines += [f"finish=$(sbatch --parsable{after} <<'FINISH'", *_finish(division, resources), "FINISH", ")"]
    lines += ['echo "submitted $slices $finish"' if division.missing else 'echo "submitted $finish"']
    return "\n".join(lines) + "\n"


def _slice(division: Division, resources: Resources) -> list[str]:
    bound = f"%{resources.at_a_time}" if resources.at_a_time else ""
    directives = [
        "#SBATCH --ntasks=1",
        *([f"#SBATCH --gpus-per-task={resources.gpus}"] if resources.gpus else []),
        f"#SBATCH --array={ranges(division.missing)}{bound}",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --requeue",
    ]
    return [
        *_head(division, resources, directives, "%x-%A_%a.log"),
        "",
        "trap : TERM USR1  # this shell outlives the signal, to ask for another turn",
        f"{SRUN} {_command(division)} \\",
        f'    --slice "$SLURM_ARRAY_TASK_ID/{division.count}" --workers "{_workers(resources)}"',
        "code=$?",
        'if [ "$code" -eq 75 ]; then  # stopped by a signal; all that is finished is kept',
        '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
        "fi",
        'exit "$code"',
    ]


def _finish(division: Division, resources: Resources) -> list[str]:
    one = Resources(1, 0, resources.memory, resources.time, directives=resources.directives)
    return [
        *_head(division, one, ["#SBATCH --ntasks=1"], "%x-%j.log", "-finish"),
        "",
        f"{SRUN} {_command(division)} --slice finish",
    ]


def _head(
    work: Division | Job, resources: Resources, directives: Sequence[str], log: str, suffix: str = ""
) -> list[str]:
    """The directives of a job; the user's own come last, and override the others."""
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name=symbert-{work.command}{suffix}",
        f"#SBATCH --chdir={_quoted(work.folder)}",
        f"#SBATCH --output={log}",
        "#SBATCH --open-mode=append",
        f"#SBATCH --cpus-per-task={resources.cpus}",
        f"#SBATCH --mem={resources.memory}",
        f"#SBATCH --time={resources.time}",
        *directives,
        *(f"#SBATCH {directive}" for directive in resources.directives),
    ]


def _command(work: Division | Job) -> str:
    return shlex.join(["symbert", work.command, *work.arguments])


def _assert_lines(work: Division | Job, resources: Resources) -> None:
    texts = (*work.arguments, work.folder, resources.memory, resources.time, *resources.directives)
    assert not any("\n" in text for text in texts), texts


def _quoted(text: str) -> str:
    """A value as sbatch reads it in a directive, where a blank ends it, `#` begins a comment and `\\` escapes."""
    if re.fullmatch(r"[\w@%+=:,./-]+", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _workers(resources: Resources) -> str:
    return str(resources.gpus) if resources.gpus else "$SLURM_CPUS_PER_TASK"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm writes them: 0-3,7,9-10."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after != before + 1), numbers[-1]]
    return ",".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
