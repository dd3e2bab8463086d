"""Write a model as an ONNX graph whose batch and length may vary. Needs the packages of the extra `onnx`."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .modeling_symbert import SymbertPreTrainedModel

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Tensors(nn.Module):
    """The model as ONNX sees it: three tensors in, a tuple of tensors out."""

    def __init__(self, model: SymbertPreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        found = self.model(input_ids, attention_mask, token_type_ids, return_dict=False)
        return tuple(found)


def example_inputs(model: SymbertPreTrainedModel, sequences: int, length: int) -> dict[str, Tensor]:
    """Random tokens of which every second sequence ends in padding; int64 tensors of shape (sequences, length)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (sequences, length), generator=generator).to(model.device)
    mask = torch.ones_like(ids)
    mask[1::2, length - length // 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def output_names(model: SymbertPreTrainedModel) -> list[str]:
    """The names of the graph's outputs: those of the model's output, such as `logits`."""
    with torch.no_grad():
        return list(model(**example_inputs(model, 1, 2)).keys())


def write_onnx(model: SymbertPreTrainedModel, path: Path) -> None:
    """Write `model` to `path`; inputs are int64 `input_ids`, `attention_mask`, `token_type_ids` of shape (B, L).

    A model without token types keeps that input, so that one caller serves all models, and does not read it.
    """
    inputs = example_inputs(model, 2, min(5, model.config.max_position_embeddings))
    with warnings.catch_warnings():
        # All three inputs have the same two axes, so all names but one of each are redundant: torch says so each time.
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        # torch.export's own call of what torch deprecates.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        torch.onnx.export(
            _Tensors(model).eval(),
            tuple(inputs[name] for name in INPUTS),
            path,
            input_names=INPUTS,
            output_names=output_names(model),
            dynamic_shapes={name: {0: "batch", 1: "length"} for name in INPUTS},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
