"""Features that differ where the tuned model is right and the base wrong (Eq. 11)."""
