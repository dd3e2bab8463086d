import json

import pytest

from cli.main import run

TABLE_2 = {  # Courtois et al. (2024), Table 2; `shared` by Kowsher et al. (2024), section 3
    "small": {"original": 28_795_194, "symmetric": 27_744_570, "pairwise": 27_875_642, "shared": 26_700_090},
    "base": {"original": 109_514_298, "symmetric": 102_427_194, "pairwise": 103_017_018, "shared": 95_367_738},
}


def test_params_prints_table_2_to_the_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["params", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert {size: {name: counts[size][name] for name in row} for size, row in TABLE_2.items()} == TABLE_2
    assert counts["hybrid"] == {"hbert-v1": 113_213_130, "hbert-v2": 114_431_226, "addbert": 116_867_418}


def test_params_as_text_shows_every_number_and_its_difference_to_the_original(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["params"]) == 0
    text = capsys.readouterr().out
    for row in TABLE_2.values():
        for count in row.values():
            assert f"{count:,}" in text
    assert "113,213,130" in text
    assert "-12.92%" in text  # Kowsher et al. print 12.94, which leaves the diagonals out


def test_params_of_one_size_and_one_operator_per_layer(capsys: pytest.CaptureFixture[str]) -> None:
    operators = "original,symmetric,symmetric,original"
    assert run(["params", "--json", "--size", "small", "--operator", operators]) == 0
    halfway = (TABLE_2["small"]["original"] + TABLE_2["small"]["symmetric"]) // 2
    assert json.loads(capsys.readouterr().out) == {"small": {operators: halfway}}


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["--operator", "parwise"], 2, "`parwise` is not an attention operator", "did you mean `pairwise`?"),
        (["--size", "bse"], 2, "'bse' is not one of 'small', 'base'", ""),
        (["--size", "small", "--operator", "original,shared"], 1, "names 2 layers; expected 4", ""),
    ],
)
def test_params_refuses_what_does_not_exist(
    arguments: list[str], code: int, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["params", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert error in output.err
    assert hint in output.err


@pytest.mark.slow
def test_params_counts_operations_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["params", "--flops", "512", "--json", "--size", "base"]) == 0
    counts = json.loads(capsys.readouterr().out)["base"]
    # 12 layers of 8 h^2 + 4 L h and 16 h^2 a token, the last one's last 18 h^2 and the head at 77 tokens alone
    length, masked, h, vocabulary = 512, 77, 768, 30_522
    attention = 8 * h * h * length + 4 * length * length * h
    first = 11 * (attention + 16 * h * h * length)
    last = attention - 2 * h * h * (length - masked) + 16 * h * h * masked
    assert counts["original"] == first + last + 2 * masked * h * (h + vocabulary)
    assert counts["original"] - counts["symmetric"] == 12 * 2 * h * h * length
    assert counts["pairwise"] - counts["symmetric"] == 12 * 2 * h * 64 * length
