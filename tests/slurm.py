"""Slurm as far as the tests need it: sbatch, srun and scontrol as small programs that run jobs one after the other.

A job's tasks are shell scripts in process groups of their own, as slurmd starts them; what is preempted gets SIGTERM,
or the signal that the job asks for, in all its processes, and comes back if it asks to be put into the queue again. A
job's nodes are all this machine.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SBATCH = """
import glob, os, re, signal, subprocess, sys, time
from pathlib import Path

state = Path(os.environ["SHIM_STATE"])
text = Path(sys.argv[-1]).read_text() if Path(sys.argv[-1]).is_file() else sys.stdin.read()
assert text.startswith("#!/bin/bash")
directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\\S+))?$", text, re.M))
number = len(list(state.glob("job-*"))) + 1
(state / f"job-{number}").write_text(" ".join(sys.argv[1:]) + "\\n" + text)
folder = directives["chdir"]
preempt = os.environ.get("SHIM_PREEMPT")  # a glob pattern: when a file matches, the first task is preempted
left = int(os.environ.get("SHIM_TIMES", 2)) if preempt else 0
ending = signal.SIGTERM
if os.environ.get("SHIM_TIME_IS_UP"):  # not for another job's sake, but as --signal=NAME@SECONDS has it
    ending = signal.Signals["SIG" + directives["signal"].partition("@")[0]]
nodes, tasks_of_node = int(directives.get("nodes", 1)), int(directives.get("ntasks-per-node", 1))

def tasks():
    for part in directives.get("array", "").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first:
            yield from range(int(first), int(last or first) + 1)

def run(task):
    global left
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": directives["cpus-per-task"],
                   "SLURM_NTASKS": str(nodes * tasks_of_node), "SLURM_JOB_NODELIST": f"node[1-{nodes}]"}
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
    log = open(state / f"log-{number}-{task}", "a")
    process = subprocess.Popen(["bash", "-c", text], cwd=folder, env=environment, stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        time.sleep(0.02)
        if left and glob.glob(preempt):
            left -= 1
            os.killpg(process.pid, ending)
            process.wait()
    with open(state / "codes", "a") as codes:
        print(number, task, process.returncode, file=codes)
    asked = state / (f"requeue-{number}" if task is None else f"requeue-{number}_{task}")
    if asked.exists():
        asked.unlink()
        run(task)

for task in (list(tasks()) if "array" in directives else [None]):
    run(task)
print(number)
"""
SRUN = """
import os, signal, subprocess, sys
words = sys.argv[1:]
options = {}
while words[0].startswith("--"):
    name, _, options[name] = words.pop(0).partition("=")
count = int(os.environ["SLURM_NTASKS"])
if count == 1:
    os.execvp(words[0], words)
assert options["--kill-on-bad-exit"] == "0"  # else this would kill what is left when the first task exits with 75
for name in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(name, lambda *_: None)  # the tasks have got it too
tasks = [
    subprocess.Popen(words, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"})
    for rank in range(count)
]
os.wait()
codes = []
for task in tasks:
    try:
        task.wait(int(options["--wait"]))
    except subprocess.TimeoutExpired:
        task.kill()
    code = task.wait()
    codes.append(code if code >= 0 else 128 - code)
sys.exit(max(codes))
"""
SCONTROL = """
import os, sys
from pathlib import Path
if sys.argv[1:3] == ["show", "hostnames"]:
    print(*["127.0.0.1"] * int(sys.argv[3].strip("node[]").partition("-")[2]), sep="\\n")
    sys.exit()
assert sys.argv[1] == "requeue"
(Path(os.environ["SHIM_STATE"]) / f"requeue-{sys.argv[2]}").touch()
"""
SYMBERT = f"""
import os, sys
os.environ["PYTHONPATH"] = {str(ROOT)!r}
os.execv(sys.executable, [sys.executable, "-m", "cli", *sys.argv[1:]])
"""


class Slurm:
    """A cluster of one machine, its state in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        programs = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "symbert": SYMBERT}
        for name, program in programs.items():
            path = folder / "bin" / name
            path.write_text(f"#!{sys.executable}\n{program}")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def submit(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a submitting script; returns when all its jobs have ended."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        settings = {**os.environ, "PATH": path, "SHIM_STATE": str(self.folder), **environment}
        return subprocess.run(["bash"], input=text, env=settings, capture_output=True, text=True, timeout=600)

    def codes(self) -> list[tuple[int, str, int]]:
        """Job, array task and exit code of everything that ran, in order."""
        lines = (self.folder / "codes").read_text().splitlines()
        return [(int(job), task, int(code)) for job, task, code in (line.split() for line in lines)]

    def log(self, job: int, task: str) -> str:
        return (self.folder / f"log-{job}-{task}").read_text()
