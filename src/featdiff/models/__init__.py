"""Causal language models: loading, the hook point, the layers above it, neurons, and distances between models."""
