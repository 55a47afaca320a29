"""Text and prompts: sources, sampling and packing."""
