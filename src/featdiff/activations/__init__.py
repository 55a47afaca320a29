"""Activations of a lineup: residual streams of several models on the same tokens, as a stream or from a cache."""
