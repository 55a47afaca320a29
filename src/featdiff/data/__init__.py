"""Corpora and prompts: sources of text, sampling and packing."""
