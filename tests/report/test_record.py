"""The commands that a report says repeat its numbers."""

import shlex
from itertools import pairwise
from pathlib import Path

from report.models import GlueFolder
from report.record import glue_command
from train.glue.protocol import Protocol, resolve_protocol


def test_the_command_of_a_glue_folder_gives_its_protocol_again() -> None:
    protocol = Protocol(mnli_start=True, learning_rate=2e-5, noise="typos", noise_rate=0.2, precision="bfloat16")
    grid = {"protocol": protocol.record(), "tasks": {}, "checkpoints": {}}
    words = shlex.split(glue_command(Path("glue"), GlueFolder([], grid), []))
    given = [word for option, word in pairwise(words) if option == "--set"]
    assert resolve_protocol(given) == protocol
