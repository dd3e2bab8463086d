"""Two Ray nodes on this machine's loopback, one of which is killed while `symbert` works: run in a process of its own.

    python -m tests.ray_cluster FOLDER KILL_WHEN COMMAND...

KILL_WHEN is a glob pattern below FOLDER: at the first file that matches, the second node's raylet is killed. In a
network namespace of its own the cluster cannot be reached from anywhere, and leaves no socket behind.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMESPACE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def run_on_two_nodes(folder: Path, kill_when: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command line of symbert on two nodes; its exit code and output."""
    needs_namespace()
    arguments = [sys.executable, "-m", "tests.ray_cluster", str(folder), kill_when, *command]
    return subprocess.run([*NAMESPACE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def needs_namespace() -> None:
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace of its own")


def main(folder: Path, kill_when: str, command: list[str]) -> int:
    """Start the cluster, run the command on it, kill a node meanwhile; returns the command's exit code."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(head_node_args={"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"},
                      initialize_head=True)  # fmt: skip
    other = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    killed = threading.Event()

    def kill() -> None:
        while not any(folder.glob(kill_when)):
            time.sleep(0.02)
        cluster.remove_node(other, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    code = subprocess.run(
        [sys.executable, "-m", "cli", *command, "--ray-address", cluster.address], cwd=ROOT
    ).returncode
    print(f"killed a node: {killed.is_set()}", file=sys.stderr)
    cluster.shutdown()
    return code


if __name__ == "__main__":
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a token for the tests of this cluster alone",
    }  # fmt: skip
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
