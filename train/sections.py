"""What every section of settings has in common: strict types, and numbers that can be computed with."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from durable.errors import with_hint

LARGEST_FLOAT = 3.4028234e38
"""Of float32, in which models and optimizers compute."""
INTEGER_BITS = 63


class Section(BaseModel):
    """Settings, none of which is misspelt; every number is finite, and one that float32 or int64 holds."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > INTEGER_BITS:
            raise ValueError(f"should have at most {INTEGER_BITS} bits")
        if isinstance(value, float) and LARGEST_FLOAT < abs(value) < math.inf:
            raise ValueError(f"should be at most {LARGEST_FLOAT:.1e}, the largest number of float32")
        return value


def _hint_at_zero(norm: Any) -> Any:
    if norm in (math.inf, "inf", "none"):
        raise with_hint(ValueError("should be a finite number"), "max_gradient_norm=0 clips nothing")
    return norm


GradientNorm = Annotated[float, Field(ge=0), BeforeValidator(_hint_at_zero)]
"""A norm that gradients are scaled down to; 0 leaves them as they are."""


def clipped_to(norm: float) -> float:
    """The norm as torch's clip_grad_norm_ takes it, for which infinity is what leaves gradients as they are."""
    return norm or math.inf
