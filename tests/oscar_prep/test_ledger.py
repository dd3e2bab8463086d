"""Counts that add up, or a run that fails."""

import numpy as np
import pytest

from oscar_prep.errors import PrepareError
from oscar_prep.ledger import Ledger


def closed() -> Ledger:
    ledger = Ledger()
    verdicts = np.array([[True, True, False, False], [False, True, True, False]])
    ledger.judge(["first", "second"], verdicts, np.array([10, 20, 30, 40]))
    ledger.put_aside([7, 8])
    ledger.skip_blank(3)
    ledger.tokens, ledger.tail = 21, 1
    ledger.samples.update(train=3, validation=1, surplus=1)
    return ledger


def test_documents_count_by_first_reason_by_each_rule_alone_and_by_overlap() -> None:
    ledger = closed()
    assert (ledger.lines, ledger.blank, ledger.documents, ledger.kept, ledger.invalid) == (9, 3, 6, 1, 2)
    assert ledger.dropped == {"first": 2, "second": 1}
    assert ledger.alone == {"first": 2, "second": 2}
    assert ledger.overlaps == {"first": 1, "first+second": 1, "second": 1}
    assert ledger.bytes == {"kept": 40, "first": 30, "second": 30, "invalid": 15}
    ledger.check(sequence_length=4)


def test_a_ledger_survives_json_and_adds_up() -> None:
    total = Ledger.from_json(closed().as_json())
    assert total == closed()
    total.add(closed())
    assert total.documents == 12
    assert total.overlaps["first+second"] == 2
    total.check(sequence_length=4)


@pytest.mark.parametrize("name", ["lines", "kept", "invalid", "tokens", "tail", "documents"])
def test_a_ledger_that_does_not_close_is_refused(name: str) -> None:
    ledger = closed()
    setattr(ledger, name, getattr(ledger, name) + 1)
    with pytest.raises(PrepareError, match="the ledger does not close"):
        ledger.check(sequence_length=4)
