"""Shapes of the tensors that many functions take."""

from jaxtyping import Bool, Float
from torch import Tensor

Values = Float[Tensor, "tokens models d_model"]
"""Activations, or their reconstruction, of all models."""
Tokens = Float[Tensor, "tokens width"]
"""The same with all models side by side: width = models * d_model."""
Codes = Float[Tensor, "tokens features"]
"""Features, or their pre-activations, of each token."""
Decoder = Float[Tensor, "features models d_model"]
"""A decoder row, or its gradient, for each feature and model."""
RowNorms = Float[Tensor, "features models"]
"""A number for each decoder row, such as its norm."""
PerFeature = Float[Tensor, " features"]
Marked = Bool[Tensor, " features"]
"""Some of the features."""
Scalar = Float[Tensor, ""]
