"""What makes pre-training fast on a GPU: a prediction head whose width suits its matrix units.

Shape suffixes: P chosen position, D hidden size, V vocabulary.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64
"""A GPU's fast kernels take rows of whole 128-byte lines: 64 numbers of bf16. BERT's 30,522 columns are 58 more."""


class PaddedLinear(nn.Linear):
    """nn.Linear, computed with as many zero rows in its weight as make the output's width a multiple of WIDTH.

    What is added is cut off again: the values are nn.Linear's up to rounding, and so are the parameters.
    """

    def forward(self, input_PD: Tensor) -> Tensor:
        missing = -self.out_features % WIDTH
        weight_VD, bias_V = F.pad(self.weight, (0, 0, 0, missing)), F.pad(self.bias, (0, missing))
        return F.linear(input_PD, weight_VD, bias_V)[..., : self.out_features]


def pad_head(model: Any) -> None:
    """Have the model's projection to the vocabulary computed in a padded form. Its weights stay as they are."""
    decoder = model.get_output_embeddings()
    if decoder.out_features % WIDTH:
        decoder.__class__ = PaddedLinear
