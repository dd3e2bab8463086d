"""How many parameters a configuration has and how many operations it takes; nothing is allocated or computed."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from .configuration_symbert import SymbertConfig
from .modeling_symbert import SymbertForMaskedLM


def count_parameters(config: SymbertConfig) -> int:
    """Number of parameters of the masked language model, tied ones counted once, as in Courtois et al., Table 2."""
    with torch.device("meta"):
        model = SymbertForMaskedLM(config)
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(config: SymbertConfig, sequence_length: int, predictions: int | None = None) -> int:
    """Floating-point operations of the matrix products in one forward pass of one sequence of the language model.

    A product of (a, b) and (b, c) counts 2 a b c; what is not a product of matrices (norms, softmax, activations) is
    left out, as is usual. With `predictions`, only that many positions are predicted (see SymbertForMaskedLM).
    """
    with torch.device("meta"), torch.no_grad():
        model = SymbertForMaskedLM(config).eval()
        ids = torch.zeros(1, sequence_length, dtype=torch.long)
        positions = None if predictions is None else torch.zeros(predictions, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(ids, masked_positions=positions)
    return int(counter.get_total_flops())
