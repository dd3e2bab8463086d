"""A model small enough for tests, for the corpora of tests/corpora.py; hardly two of its sizes are equal."""

from train.recipe import Recipe, load_recipe

TINY = {
    "model.vocab_size": 101,
    "model.hidden_size": 24,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 3,
    "model.intermediate_size": 40,
    "model.max_position_embeddings": 48,
    "data.sequence_length": 32,
    "optimizer.learning_rate": 0.01,
    "schedule.max_steps": 20,
    "schedule.warmup_steps": 4,
    "training.batch_size": 8,
    "training.precision": '"fp32"',
    "evaluation.every": 5,
    "checkpoint.every": 6,
}


def tiny_assignments(**changes: object) -> list[str]:
    """`--set` assignments of the tiny recipe; keywords such as training__seed=2 change it."""
    settings = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{name}={value}" for name, value in settings.items()]


def tiny_recipe(operator: str = "original", **changes: object) -> Recipe:
    return load_recipe(operator=operator, assignments=tiny_assignments(**changes))
