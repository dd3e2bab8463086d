import pytest

from train.errors import TrainError
from train.glue.tasks import NUMBERS, TASKS, chosen_tasks, named_task

HUB_LABELS = {  # nyu-mll/glue, features["label"].names
    "cola": ["unacceptable", "acceptable"],
    "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": [],
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
}


@pytest.mark.parametrize("name", HUB_LABELS)
def test_labels_and_their_order_are_those_of_the_hub(name: str) -> None:
    assert list(TASKS[name].classes.values()) == HUB_LABELS[name]


def test_there_are_nine_tasks_and_nine_numbers_of_eight_of_them() -> None:
    assert TASKS.keys() == HUB_LABELS.keys() | {"massive", "emotion"}
    assert NUMBERS == ("mrpc", "cola", "mnli_m", "mnli_mm", "qqp", "rte", "stsb", "qnli", "sst2")


def test_massive_has_sixty_intents_and_emotion_six_feelings() -> None:
    assert len(set(TASKS["massive"].classes)) == 60
    assert list(TASKS["massive"].classes)[:2] == ["datetime_query", "iot_hue_lightchange"]  # as on the hub
    assert list(TASKS["emotion"].classes) == ["sadness", "joy", "love", "anger", "fear", "surprise"]
    assert not TASKS["massive"].one_digit
    assert TASKS["emotion"].one_digit


def test_all_stands_for_the_eight_tasks_of_the_average() -> None:
    assert {task.name for task in chosen_tasks(["all"])} == HUB_LABELS.keys() - {"wnli"}
    assert chosen_tasks(["wnli", "all"])[0].name == "wnli"


@pytest.mark.parametrize(("wrong", "near"), [("sst-2", "sst2"), ("STS-B", "stsb"), ("mnlii", "mnli"), ("CoLA", "cola")])
def test_an_unknown_task_is_refused_with_the_nearest_name(wrong: str, near: str) -> None:
    with pytest.raises(TrainError, match=f"`{wrong}` is not a GLUE task") as caught:
        named_task(wrong)
    assert caught.value.__notes__ == [f"did you mean `{near}`?"]
