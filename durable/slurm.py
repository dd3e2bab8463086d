"""The text that submits a divided run to Slurm: an array of slices, and a last job that finishes.

Slurm keeps no state for us: what is done is in the output folder, so the text can be made anew at any time, and then
holds only what is left.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


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


def sbatch_text(division: Division, resources: Resources) -> str:
    """A shell script that submits the slices that are missing, and after them the job that finishes.

    Nothing in it may hold a line break: that would end a directive, or the text of a job.
    """
    texts = (*division.arguments, division.folder, resources.memory, resources.time, *resources.directives)
    assert not any("\n" in text for text in texts), texts
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
    return [
        *_head(division, resources, "%x-%A_%a.log"),
        f"#SBATCH --array={ranges(division.missing)}{bound}",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --requeue",
        "",
        "trap : TERM USR1  # this shell outlives the signal, to ask for another turn",
        f"srun {_command(division)} \\",
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
        *_head(division, one, "%x-%j.log", "-finish"),
        "",
        f"srun {_command(division)} --slice finish",
    ]


def _head(division: Division, resources: Resources, log: str, suffix: str = "") -> list[str]:
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name=symbert-{division.command}{suffix}",
        f"#SBATCH --chdir={_quoted(division.folder)}",
        f"#SBATCH --output={log}",
        "#SBATCH --open-mode=append",
        "#SBATCH --ntasks=1",
        f"#SBATCH --cpus-per-task={resources.cpus}",
        *([f"#SBATCH --gpus-per-task={resources.gpus}"] if resources.gpus else []),
        f"#SBATCH --mem={resources.memory}",
        f"#SBATCH --time={resources.time}",
        *(f"#SBATCH {directive}" for directive in resources.directives),
    ]


def _command(division: Division) -> str:
    return shlex.join(["symbert", division.command, *division.arguments])


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
