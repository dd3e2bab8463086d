"""The head's padded form: the same function, and the same checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from symbert import SymbertForMaskedLM
from tests.train.tiny import tiny_recipe
from train.gpu import WIDTH, PaddedLinear, pad_head
from train.pretrain import first_model


def models(vocabulary: int = 101) -> tuple[SymbertForMaskedLM, SymbertForMaskedLM]:
    """A model, and the same with its head padded."""
    plain, padded = (first_model(tiny_recipe(model__vocab_size=vocabulary)).eval() for _ in range(2))
    pad_head(padded)
    return plain, padded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_padded_head_gives_the_logits_and_gradients_of_the_plain_one(dtype: torch.dtype) -> None:
    ids, positions, labels = torch.arange(24).reshape(2, 12), torch.tensor([1, 5, 20]), torch.tensor([7, 100, 3])
    found = []
    for model in models():
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            logits = model(input_ids=ids, masked_positions=positions).logits
        assert logits.shape == (3, 101)
        F.cross_entropy(logits.float(), labels).backward()
        found.append({"logits": logits, **{name: weight.grad for name, weight in model.named_parameters()}})
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=tolerance, atol=tolerance / 10)


def test_the_matrix_product_has_a_width_that_is_a_multiple_of_64() -> None:
    _, padded = models()
    shapes = []

    class Shapes(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function is F.linear:
                shapes.append(tuple(result.shape))
            return result

    with Shapes():
        padded.get_output_embeddings()(torch.randn(3, 24))
    assert shapes == [(3, 2 * WIDTH)]


def test_a_checkpoint_does_not_know_of_the_padding(tmp_path: Path) -> None:
    plain, padded = models()
    for model, name in ((plain, "plain"), (padded, "padded")):
        model.save_pretrained(tmp_path / name)
    for file in (tmp_path / "plain").iterdir():
        assert file.read_bytes() == (tmp_path / "padded" / file.name).read_bytes(), file.name


def test_a_head_of_a_fitting_width_is_left_alone() -> None:
    _, model = models(2 * WIDTH)
    assert not isinstance(model.get_output_embeddings(), PaddedLinear)
