"""Named places where a test may kill the process, so that crash tests are exact instead of lucky.

`SYMBERT_FAILPOINT=name:count:action` acts when the process passes `name` for the `count`-th time.
Actions: `kill` (SIGKILL, nothing is flushed), `term` (SIGTERM to this process), `full` (a full disk: ENOSPC),
`memory` (none is left: MemoryError).
"""

import errno
import os
import signal
from collections import Counter

from durable.errors import DurableError, with_hint

VARIABLE = "SYMBERT_FAILPOINT"
_passages: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Act if `SYMBERT_FAILPOINT` names this place and this passage; cost otherwise: one look-up."""
    setting = os.environ.get(VARIABLE)
    if not setting:
        return
    wanted, count, action = _parse(setting)
    if wanted != name:
        return
    _passages[setting] += 1
    if _passages[setting] != count:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "memory":
        raise MemoryError(f"failpoint {name}")
    else:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (failpoint {name})")


def _parse(setting: str) -> tuple[str, int, str]:
    name, _, rest = setting.rpartition(":")[0].rpartition(":")
    action = setting.rpartition(":")[2]
    if not name or not rest.isdecimal() or action not in {"kill", "term", "full", "memory"}:
        raise with_hint(
            DurableError(f"{VARIABLE}={setting} is not `name:count:action`"),
            "actions are kill, term, full and memory, as in `shard.before-rename:1:kill`",
        )
    return name, int(rest), action
