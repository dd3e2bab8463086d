"""A Ray cluster for the length of a command: one that runs somewhere, or one started here.

One started here keeps to this machine, lets nobody in without its token, shows no dashboard and leaves nothing
behind. A running one is asked whether it is well before it is trusted: `ray.init` waits for more than a minute on an
address that does not answer, and then ends the process.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from durable.errors import DurableError, with_hint
from durable.stores import without_secrets

SECONDS_TO_ANSWER = 3.0
SECONDS_TO_BE_WELL = 15.0
OBJECT_STORE_BYTES = 100_000_000  # only settings and results pass through it; Ray takes no less than 75 MB
LOCAL, AUTO = "local", "auto"
_TOKEN = secrets.token_hex(32)
"""One for all clusters of this process, since Ray reads it once."""


@contextlib.contextmanager
def connected(address: str | None, cpus: int) -> Iterator[Any]:
    """Yield the module `ray`, connected; `cpus` are what a cluster started here has.

    `address` is host:port of the head node, "auto" for the cluster that this machine belongs to, "local" or None for
    one of its own. Raises DurableError within seconds if Ray is not installed or nothing answers.
    """
    ours = address in (None, LOCAL)
    folder = tempfile.mkdtemp(prefix="symbert-ray-", dir="/tmp") if ours else None  # a socket's path has 107 bytes
    # Ray takes over SIGTERM, which is the command's own affair.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _environment(ours):  # children of this process have no business with the token
            ray = _imported()
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            if ours:
                ray.init(
                    address="local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder,
                    object_store_memory=OBJECT_STORE_BYTES, **quiet,
                )  # fmt: skip
            else:
                assert address is not None
                ray.init(address=_well(address), **quiet)
        _put_back(handlers)
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        _put_back(handlers)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _put_back(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def _environment(ours: bool) -> Iterator[None]:
    """What Ray reads from the environment: no reports to its makers and, for a cluster of our own, a token."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if ours:
        settings |= {"RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or _TOKEN}
    if ours and "ray" not in sys.modules:  # Ray reads it when it is imported; since 2.59 it is so by default
        settings |= {"RAY_AUTH_MODE": "token"}
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}  # which Ray may set as well
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _imported() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise with_hint(
            DurableError("Ray is not installed, which --engine ray needs"), "pip install 'symbert[ray]'"
        ) from None
    return ray


# Connects and says where; in a process of its own, for connecting cannot be given up.
_PROBE = """
import ray, sys
context = ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
print(context.address_info["gcs_address"])
"""


def _well(address: str) -> str:
    """The address, if a Ray cluster answers there. Raises DurableError if not."""
    known = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if known != AUTO:
        _check_answers(known)
    where, complaints = _probe(known)
    if where is not None:
        return where
    if "InvalidAuthToken" in complaints or "AuthenticationError" in complaints:
        raise with_hint(
            DurableError(f"the Ray cluster at {known} asks for another token"),
            "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, with the token that the cluster was started with",
        )
    if known == AUTO:
        raise with_hint(
            DurableError("this machine belongs to no Ray cluster that runs"),
            "ray start --head, or --ray-address host:port, or none at all to start a cluster here",
        )
    if "Version mismatch" in complaints:
        raise with_hint(
            DurableError(f"the Ray cluster at {known} runs another version of Ray or Python than this command"),
            "the same versions on all machines: `ray --version` and `python --version` print them",
        )
    # What it raised in the end, not what it logged on the way: those lines begin with a time and a process.
    raised = re.findall(r"^[\w.]*(?:Error|Exception): (.+)", complaints, re.MULTILINE)
    reason = f": {raised[-1].rstrip(' .')}" if raised else ""
    raise with_hint(
        DurableError(f"what answers at {known} is no Ray cluster, or one that is not well{reason}"),
        "`ray start --head` prints the address of a cluster, `ray status` says whether it is well",
    )


def _probe(address: str) -> tuple[str | None, str]:
    """Where the cluster is, or None; and what the attempt to connect has complained of."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        command = [sys.executable, "-c", _PROBE, address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, encoding="utf-8")
        ends = time.monotonic() + SECONDS_TO_BE_WELL
        heard = ""
        while process.poll() is None and time.monotonic() < ends and "InvalidAuthToken" not in heard:
            time.sleep(0.2)
            complaints.seek(0)
            heard = complaints.read()
        process.kill()
        said = process.communicate()[0].split()
        complaints.seek(0)
        return (said[-1] if said and not process.returncode else None), complaints.read()


def _check_answers(address: str) -> None:
    if "@" in address:  # no part of which is repeated
        raise with_hint(
            DurableError("--ray-address holds a user or a password, expected host:port alone"),
            "--ray-address 10.0.0.1:6379; RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE for a cluster with a token",
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        what = without_secrets(address)
        raise with_hint(
            DurableError(f"--ray-address {what} is not host:port of a cluster's head node, auto or local"),
            "--ray-address 10.0.0.1:6379, the port up to 65535; the command itself runs on a machine of the cluster",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:  # the latter for what no host can be called
        raise with_hint(
            DurableError(f"no Ray cluster answers at {address}: {error}"),
            "`ray start --head` prints the address of a cluster, `ray status` says whether it runs",
        ) from None
