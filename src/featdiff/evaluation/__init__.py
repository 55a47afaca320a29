"""Models on benchmarks, item by item, by lm-eval; their outcomes, and the items as token ids."""
