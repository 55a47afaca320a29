"""Post-training through TRL: one base, identical prompts, two paradigms, checkpoints of each (Sec. 4, A.2, A.3)."""
