"""The training step: exact gradients of the loss (`crosscoder/loss.py`), clipped, and Adam.

reference   dense autograd and torch's Adam: slow and short; the others are tested against it; any device and precision
dense       the five products of a dense step written out, gradients in place
cpu         cost follows the active features: an int8 screen finds them, all values are float32 (numba)
triton      the same on a GPU, after a bfloat16 screen
"""
