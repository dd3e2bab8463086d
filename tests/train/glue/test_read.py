from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from train.errors import TrainError
from train.glue.files import check_files
from train.glue.read import from_datasets, read_task, read_test
from train.glue.tasks import TASKS

PAIR = ["index", "sentence1", "sentence2", "label"]
STSB = ["index", "genre", "filename", "year", "old", "source1", "source2", "sentence1", "sentence2", "score"]
OFFICIAL_ROWS = {
    "cola": {"train": 8_551, "validation": 1_043},
    "sst2": {"train": 67_349, "validation": 872},
    "mrpc": {"train": 3_668, "validation": 408},
    "stsb": {"train": 5_749, "validation": 1_500},
    "rte": {"train": 2_490, "validation": 277},
    "wnli": {"train": 635, "validation": 71},
    "qnli": {"validation": 5_463},
    "mnli": {"validation_matched": 9_815},
}


def write(folder: Path, files: dict[str, Sequence[Sequence[str]]], start: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / name).write_text(start + "".join("\t".join(row) + "\n" for row in rows), "utf-8")


def test_cola_has_no_header_and_keeps_its_first_sentence(tmp_path: Path) -> None:
    rows = [["gj04", "1", "", "Our friends won't buy this."], ["gj04", "0", "*", 'They drank the pub "dry ']]
    write(tmp_path / "CoLA", {"train.tsv": rows, "dev.tsv": rows[:1]})
    data = read_task(TASKS["cola"], tmp_path)
    assert data.train.text == (["Our friends won't buy this.", 'They drank the pub "dry '],)
    assert data.train.labels.tolist() == [1, 0]
    assert data.rows() == {"train": 2, "validation": 1}


def test_a_last_line_without_its_newline_counts(tmp_path: Path) -> None:
    write(tmp_path / "CoLA", {"train.tsv": [["gj04", "1", "", "A."]]})
    (tmp_path / "CoLA" / "dev.tsv").write_text("gj04\t1\t\tA.\ngj04\t0\t*\tB.", "utf-8")
    assert read_task(TASKS["cola"], tmp_path).rows() == {"train": 1, "validation": 2}


def test_quotes_and_line_separators_inside_text_are_ordinary_characters(tmp_path: Path) -> None:
    rows = [PAIR, ["0", '"An open quote', 'a \u2028 b \x85 c"', "entailment"], ["1", '"', "x", "not_entailment"]]
    write(tmp_path / "RTE", {"train.tsv": rows, "dev.tsv": rows})
    data = read_task(TASKS["rte"], tmp_path)
    assert data.train.text == (['"An open quote', '"'], ['a \u2028 b \x85 c"', "x"])
    assert data.train.labels.tolist() == [0, 1]


def test_wnli_counts_its_labels_the_other_way_round_than_rte(tmp_path: Path) -> None:
    rows = [PAIR, ["0", "a", "b", "1"], ["1", "a", "b", "0"]]
    write(tmp_path / "WNLI", {"train.tsv": rows, "dev.tsv": rows})
    task = TASKS["wnli"]
    names = [list(task.classes.values())[label] for label in read_task(task, tmp_path).train.labels]
    assert names == ["entailment", "not_entailment"]


MRPC = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
MRPC_ROWS = [["1", "11", "12", 'He said " no .', "No ."], ["0", "13", "14", "A", "B"], ["1", "15", "16", "C", "D"]]


def test_both_layouts_of_mrpc_are_the_same_data(tmp_path: Path) -> None:
    write(tmp_path / "a" / "MRPC", {"train.tsv": [MRPC, MRPC_ROWS[0], MRPC_ROWS[2]]})
    write(tmp_path / "a" / "MRPC", {"dev.tsv": [MRPC, MRPC_ROWS[1]]}, start="\ufeff")
    write(tmp_path / "b" / "MRPC", {"msr_paraphrase_train.txt": [MRPC, *MRPC_ROWS]}, start="\ufeff")
    write(tmp_path / "b" / "MRPC", {"mrpc_dev_ids.tsv": [["13", "14"]]})
    split, raw = (read_task(TASKS["mrpc"], tmp_path / folder) for folder in "ab")
    assert split.rows() == {"train": 2, "validation": 1}
    assert split.train.text[0] == ['He said " no .', "C"]
    assert split.sha256 == raw.sha256


def test_qqp_rows_with_missing_fields_are_left_out_and_counted(tmp_path: Path) -> None:
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    whole = [["0", "1", "2", "Why?", "", "0"], ["3", "4", "5", "How?", "How so?", "1"]]
    broken = [["1", "3", "4", "What is"], ["this?", "What?", "1"]]
    write(tmp_path / "QQP", {"train.tsv": [header, whole[0], *broken, whole[1]], "dev.tsv": [header, *whole]})
    data = read_task(TASKS["qqp"], tmp_path)
    assert data.rows() == {"train": 2, "validation": 2, "train_left_out": 2}
    assert data.train.labels.tolist() == [0, 1]


def test_mnli_has_twelve_columns_in_training_and_sixteen_in_validation(tmp_path: Path) -> None:
    first = ["index", "promptID", "pairID", "genre", *["parse"] * 4, "sentence1", "sentence2", "label1"]
    short = [[*first, "gold_label"], [*"01234567", "p", "h", "neutral", "contradiction"]]
    more = ["label2", "label3", "label4", "label5"]
    long = [[*first, *more, "gold_label"], [*"01234567", "p", "h", *["neutral"] * 5, "entailment"]]
    write(tmp_path / "MNLI", {"train.tsv": short, "dev_matched.tsv": long, "dev_mismatched.tsv": long})
    data = read_task(TASKS["mnli"], tmp_path)
    assert data.train.labels.tolist() == [2]
    assert {name: split.labels.tolist() for name, split in data.validation.items()} == {
        "validation_matched": [0],
        "validation_mismatched": [0],
    }


def test_stsb_scores_are_numbers(tmp_path: Path) -> None:
    rows = [STSB, [*"0123456", "a", "b", "3.800"]]
    write(tmp_path / "STS-B", {"train.tsv": rows, "dev.tsv": rows})
    labels = read_task(TASKS["stsb"], tmp_path).train.labels
    assert labels.dtype == np.float32
    assert labels.tolist() == [np.float32(3.8)]


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("rte", [["index", "sentence1", "label"]], "line 1: column `sentence2` is missing, expected a header with"),
        ("rte", [PAIR, ["0", "a", "b"]], "line 2: 3 fields, expected 4"),
        ("rte", [PAIR, ["0", "a", "b", "entailment", "x"]], "line 2: 5 fields, expected 4"),
        ("rte", [PAIR, ["0", "a", "b", "maybe"]], "line 2: `label` is 'maybe', expected one of entailment, not_ent"),
        ("rte", [PAIR], "holds no row of the train split"),
        ("rte", [], "line 1: column `sentence1` is missing"),
        ("cola", [["gj04", "1", "", "a"], ["gj04", "1", "a"]], "line 2: 3 fields, expected 4"),
        ("cola", [], "holds no row of the train split"),
    ],
)
def test_a_faulty_file_is_an_error_that_names_file_and_line(
    task: str, rows: list[list[str]], message: str, tmp_path: Path
) -> None:
    folder = TASKS[task].folder
    write(tmp_path / folder, {"train.tsv": rows, "dev.tsv": rows})
    with pytest.raises(TrainError) as caught:
        read_task(TASKS[task], tmp_path)
    assert str(caught.value).startswith(str(tmp_path / folder / "train.tsv"))
    assert message in str(caught.value)


@pytest.mark.parametrize("score", ["nan", "inf", "five", "", "9.0", "5.001", "-1", "1_0", "1e0", " 1", "+1", "٣"])
def test_a_score_that_is_no_plain_number_from_0_to_5_is_an_error(score: str, tmp_path: Path) -> None:
    rows = [STSB, [*"0123456", "a", "b", score]]
    write(tmp_path / "STS-B", {"train.tsv": rows, "dev.tsv": rows})
    with pytest.raises(TrainError, match="line 2: `score` is .*, expected a number from 0 to 5"):
        read_task(TASKS["stsb"], tmp_path)


def test_a_missing_folder_or_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nowhere does not exist, expected a folder with the GLUE tasks"):
        read_task(TASKS["rte"], tmp_path / "nowhere")
    (tmp_path / "CoLA").mkdir()
    with pytest.raises(TrainError, match=r"RTE does not exist, expected dev.tsv and train.tsv in it") as caught:
        read_task(TASKS["rte"], tmp_path)
    assert caught.value.__notes__ == [f"{tmp_path} holds CoLA"]
    write(tmp_path / "RTE", {"train.tsv": [PAIR]})
    with pytest.raises(TrainError, match=r"RTE/dev.tsv does not exist"):
        read_task(TASKS["rte"], tmp_path)


def test_a_file_as_data_folder_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "glue.zip").write_text("")
    with pytest.raises(TrainError, match=r"glue\.zip is a file, expected a folder with the GLUE tasks"):
        read_task(TASKS["rte"], tmp_path / "glue.zip")


def test_all_missing_tasks_are_named_with_what_may_be_asked_for_instead(tmp_path: Path) -> None:
    write(tmp_path / "CoLA", {"train.tsv": [], "dev.tsv": []})
    write(tmp_path / "RTE", {"train.tsv": [PAIR], "dev.tsv": [PAIR]})
    write(tmp_path / "QNLI", {"train.tsv": [PAIR]})
    check_files([TASKS["cola"], TASKS["rte"]], tmp_path)
    with pytest.raises(TrainError) as caught:
        check_files([TASKS[name] for name in ("mrpc", "cola", "rte", "qnli")], tmp_path)
    first = f"{tmp_path / 'MRPC'} does not exist, expected dev.tsv and train.tsv in it"
    assert str(caught.value) == f"{tmp_path} lacks files of MRPC, QNLI: {first}"
    assert caught.value.__notes__ == ["--tasks cola,rte takes those that are there"]
    with pytest.raises(TrainError, match=r"QNLI/dev\.tsv does not exist") as caught:
        check_files([TASKS["cola"], TASKS["qnli"]], tmp_path)
    assert caught.value.__notes__ == ["--tasks cola takes those that are there"]


def test_all_missing_test_sets_are_named_where_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("cola", "rte", "qnli"):
        write(tmp_path / TASKS[name].folder, {"train.tsv": [PAIR], "dev.tsv": [PAIR]})
    write(tmp_path / "CoLA", {"test.tsv": [["index", "sentence"]]})
    tasks = [TASKS[name] for name in ("cola", "rte", "qnli")]
    check_files(tasks, tmp_path)
    with pytest.raises(TrainError) as caught:
        check_files(tasks, tmp_path, with_tests=True)
    first = f"{tmp_path / 'RTE' / 'test.tsv'} does not exist, expected the test set of rte"
    assert str(caught.value) == f"{tmp_path} lacks files of RTE, QNLI: {first}"
    assert caught.value.__notes__ == ["--tasks cola takes those that are there"]


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_the_test_set_of_mrpc_is_read_from_either_layout(start: str, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"MRPC/test\.tsv does not exist, .* there or in msr_paraphrase_test\.txt"):
        read_test(TASKS["mrpc"], tmp_path)
    write(tmp_path / "a" / "MRPC", {"msr_paraphrase_test.txt": [MRPC, *MRPC_ROWS]}, start)
    rows = [[str(number), *row[1:]] for number, row in enumerate(MRPC_ROWS)]
    write(tmp_path / "b" / "MRPC", {"test.tsv": [["index", *MRPC[1:]], *rows]}, start)
    raw, split = (read_test(TASKS["mrpc"], tmp_path / folder) for folder in "ab")
    assert raw.splits["MRPC"].text == (['He said " no .', "A", "C"], ["No .", "B", "D"])
    assert raw.sha256 == split.sha256


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "CoLA", {"dev.tsv": [["gj04", "1", "", "a"]]})
    (tmp_path / "CoLA" / "train.tsv").write_bytes(b"gj04\t1\t\tcaf\xe9\n")
    with pytest.raises(TrainError, match=r"train.tsv is not UTF-8 text"):
        read_task(TASKS["cola"], tmp_path)


def test_the_hub_and_the_files_are_the_same_data(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [PAIR, ["0", "a", "b", "entailment"], ["1", "c ", "d", "not_entailment"]]
    write(tmp_path / "RTE", {"train.tsv": rows, "dev.tsv": rows[:2]})
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    features = datasets.Features(
        {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": names}
    )
    table = {"sentence1": ["a", "c "], "sentence2": ["b", "d"], "label": [0, 1]}
    whole = datasets.Dataset.from_dict(table, features=features)
    hub = datasets.DatasetDict(train=whole, validation=whole.select([0]), test=whole)
    assert from_datasets(TASKS["rte"], hub).sha256 == read_task(TASKS["rte"], tmp_path).sha256


def test_another_label_order_than_the_hubs_is_an_error() -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["not_entailment", "entailment"])
    features = datasets.Features(
        {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": names}
    )
    rows = datasets.Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "label": [0]}, features=features)
    with pytest.raises(TrainError, match=r"labels are \['not_entailment', 'entailment'\]"):
        from_datasets(TASKS["rte"], {"train": rows, "validation": rows})


@pytest.mark.parametrize("score", [-1.0, 5.5, float("nan")])
def test_a_score_of_the_hub_that_is_out_of_range_is_an_error(score: float) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({name: datasets.Value("string") for name in ("sentence1", "sentence2")})
    features["label"] = datasets.Value("float32")
    table = {"sentence1": ["a"], "sentence2": ["b"], "label": [score]}
    rows = datasets.Dataset.from_dict(table, features=features)
    with pytest.raises(TrainError, match=r"stsb, train: a row's label is no number from 0 to 5"):
        from_datasets(TASKS["stsb"], {"train": rows, "validation": rows})


@pytest.mark.shared
@pytest.mark.parametrize("name", OFFICIAL_ROWS)
def test_the_official_files_have_the_official_number_of_rows(name: str, shared: Path) -> None:
    rows = read_task(TASKS[name], shared / "glue").rows()
    assert {split: rows[split] for split in OFFICIAL_ROWS[name]} == OFFICIAL_ROWS[name]
    assert not any(split.endswith("_left_out") for split in rows)


@pytest.mark.shared
def test_both_layouts_of_the_official_mrpc_are_the_same_data(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "MRPC").mkdir()
    for name in ("msr_paraphrase_train.txt", "mrpc_dev_ids.tsv"):
        (tmp_path / "MRPC" / name).symlink_to(shared / "glue" / "MRPC" / name)
    raw, split = read_task(TASKS["mrpc"], tmp_path), read_task(TASKS["mrpc"], shared / "glue")
    assert raw.sha256 == split.sha256
