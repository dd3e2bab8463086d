import re
from pathlib import Path

import pytest
import torch

from durable.errors import DurableError
from durable.settings import keys_of
from symbert import HYBRID_MODELS, OPERATORS, SymbertConfig, SymbertError, SymbertForMaskedLM, count_parameters
from train.errors import TrainError
from train.recipe import Recipe, load_recipe, recipe_names, symbert_config

ROOT = Path(__file__).parents[2]
# Courtois et al. (2024), Table 2; for `shared`, Kowsher et al. (2024), whose published base model has 95.4M.
PUBLISHED = {
    "small": {"original": 28_795_194, "symmetric": 27_744_570, "pairwise": 27_875_642, "shared": 26_700_090},
    "base": {"original": 109_514_298, "symmetric": 102_427_194, "pairwise": 103_017_018, "shared": 95_367_738},
}


def annotation_of(key: str) -> object:
    section, _, name = key.partition(".")
    return Recipe.model_fields[section].annotation.model_fields[name].annotation


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        SymbertForMaskedLM(symbert_config(recipe.model))


@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - {"additive"}))
@pytest.mark.parametrize("size", PUBLISHED)
def test_each_size_and_operator_has_a_recipe_with_the_published_parameters(size: str, operator: str) -> None:
    recipe = load_recipe(f"bert-{size}-{operator}")
    assert count_parameters(symbert_config(recipe.model)) == PUBLISHED[size][operator]
    assert recipe == load_recipe(size=size, operator=operator)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("hbert-v1", 113_213_130), ("hbert-v2", 114_431_226), ("addbert", 116_867_418), ("bert-budget", 109_514_298)],
)
def test_hybridbert_and_its_baseline_have_recipes_with_the_published_settings(name: str, parameters: int) -> None:
    recipe = load_recipe(name)
    config = symbert_config(recipe.model)
    assert count_parameters(config) == parameters
    expected = SymbertConfig(**HYBRID_MODELS.get(name, {}))
    assert {**config.to_dict(), "attention_operator": config.layer_operators} == {
        **expected.to_dict(),
        "attention_operator": expected.layer_operators,
    }
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.learning_rate, optimizer.epsilon, schedule.warmup_steps) == (1e-5, 1e-8, 10_000)
    assert (recipe.training.batch_size, recipe.training.seed) == (48, 10)
    assert schedule.max_minutes == 5 * 24 * 60


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.training.batch_size, recipe.schedule.max_steps, recipe.schedule.warmup_steps) == (
        256,
        200_000,
        10_000,
    )
    optimizer = recipe.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.max_gradient_norm) == (1e-4, 0.01, 1.0)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-12)
    assert (recipe.masking.probability, recipe.masking.mask_share, recipe.masking.random_share) == (0.15, 0.8, 0.1)
    assert (recipe.evaluation.every, recipe.evaluation.samples, recipe.checkpoint.every) == (250, 10_000, 1_000)
    assert (recipe.data.sequence_length, recipe.model.vocab_size, recipe.training.seed) == (512, 30_522, 1)


@pytest.mark.parametrize(
    ("source", "assignments", "positions"),
    [
        (None, [], 512),
        (None, ["data.sequence_length=64"], 64),
        (None, ["data.sequence_length=1024"], 1024),
        (None, ["data.sequence_length=64", "model.max_position_embeddings=512"], 512),
        ("demo", [], 32),
        ("nano", [], 64),
        ("bert-base-pairwise", [], 512),
    ],
)
def test_a_model_has_the_positions_of_a_sample_unless_the_recipe_names_them(
    source: str | None, assignments: list[str], positions: int
) -> None:
    recipe = load_recipe(source, assignments=assignments)
    assert recipe.model.max_position_embeddings == positions
    assert recipe.identity()["model"]["max_position_embeddings"] == positions


def test_a_recipe_is_found_by_path_and_by_name() -> None:
    assert load_recipe(str(ROOT / "recipes" / "debug.toml")) == load_recipe("debug")


def test_assignments_win_over_flags_and_flags_over_the_recipe() -> None:
    recipe = load_recipe("bert-base-pairwise", operator="symmetric", max_steps=20_000)
    assert (recipe.model.attention_operator, recipe.schedule.max_steps) == ("symmetric", 20_000)
    recipe = load_recipe("debug", max_steps=20, assignments=["schedule.max_steps=30", "model.pairwise_init=scaled"])
    assert (recipe.schedule.max_steps, recipe.model.pairwise_init) == (30, "scaled")


@pytest.mark.parametrize("section", Recipe.model_fields)
def test_every_key_of_a_recipe_is_described(section: str) -> None:
    for name, field in Recipe.model_fields[section].annotation.model_fields.items():
        assert field.description, f"{section}.{name}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "bert-huge"}, "bert-huge is neither a recipe file nor the name of a shipped recipe"),
        ({"size": "huge"}, "--size huge is not a size, expected small or base"),
        (
            {"source": "bert-base-original", "size": "small"},
            "--size small beside the recipe bert-base-original, which sets",
        ),
        ({"assignments": ["schedule.max_step=10"]}, "`schedule.max_step` is not a recipe key"),
        ({"assignments": ["optimizer.learning_rate=fast"]}, "`optimizer.learning_rate` = 'fast'"),
        ({"assignments": ["training.batch_size=0"]}, "`training.batch_size` = 0: should be greater than 0"),
        ({"assignments": ["training.precision=fp8"]}, "`training.precision` = 'fp8': should be "),
        ({"max_steps": 9_999}, "max_steps 9999 is below warmup_steps 10000"),
        (
            {"assignments": ["data.sequence_length=513", "model.max_position_embeddings=512"]},
            "data.sequence_length 513 does not fit into model.max_position_embeddings 512",
        ),
        ({"assignments": ["masking.mask_share=0.95"]}, "exceed 1 together"),
        ({"assignments": ["model.num_attention_heads=7"]}, "expected a multiple of the 7 heads"),
        ({"assignments": ["model.hidden_act=swoosh"]}, "`model.hidden_act` = 'swoosh'"),
        ({"operator": "pairwize"}, "`pairwize` is not an attention operator"),
        ({"operator": "original,pairwise"}, "names 2 layers; expected 4"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_in_words(options: dict[str, object], message: str) -> None:
    with pytest.raises((TrainError, DurableError, SymbertError), match=re.escape(message)):
        load_recipe(**options)


FLOATS = [key for key in keys_of(Recipe) if "float" in str(annotation_of(key))]
INTEGERS = [key for key in keys_of(Recipe) if "int" in str(annotation_of(key))]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e39", "-1e308", f"1{'0' * 400}", f"1{'0' * 5000}"])
@pytest.mark.parametrize("key", FLOATS)
def test_every_number_of_a_recipe_is_finite_and_one_of_float32(key: str, value: str) -> None:
    with pytest.raises(DurableError, match=f"`{key}` = "):
        load_recipe(assignments=[f"{key}={value}"])


@pytest.mark.parametrize("value", [str(2**63), f"1{'0' * 400}", f"1{'0' * 5000}", "inf"])
@pytest.mark.parametrize("key", INTEGERS)
def test_every_integer_of_a_recipe_fits_into_64_bits(key: str, value: str) -> None:
    with pytest.raises(DurableError, match=f"`{key}` = "):
        load_recipe(assignments=[f"{key}={value}"])


def test_a_number_of_thousands_of_digits_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"[training]\nbatch_size = 1{'0' * 5000}\n", "utf-8")
    with pytest.raises(DurableError, match=r"mine\.toml is not valid TOML"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_norm_of_zero_clips_nothing_and_an_infinite_one_is_refused_with_that_hint() -> None:
    assert load_recipe(assignments=["optimizer.max_gradient_norm=0"]).optimizer.max_gradient_norm == 0
    for value in ("inf", "none"):
        with pytest.raises(DurableError) as refusal:
            load_recipe(assignments=[f"optimizer.max_gradient_norm={value}"])
        assert refusal.value.__notes__ == ["max_gradient_norm=0 clips nothing"]


def test_a_misspelt_key_gets_a_hint() -> None:
    with pytest.raises(DurableError) as refusal:
        load_recipe(assignments=["schedule.max_step=10"])
    assert refusal.value.__notes__ == ["did you mean `schedule.max_steps`?"]


@pytest.mark.parametrize("text", ["model = 3", "[model", "[modle]\nhidden_size = 3"])
def test_a_recipe_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises((TrainError, DurableError)):
        load_recipe(str(path))


def test_a_layer_may_have_an_operator_of_its_own() -> None:
    recipe = load_recipe(operator="original,pairwise,pairwise,symmetric")
    assert symbert_config(recipe.model).layer_operators == ["original", "pairwise", "pairwise", "symmetric"]
