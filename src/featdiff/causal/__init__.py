"""What a feature does: outcomes on benchmarks, selection, interventions and their controls (P9, P12-P15)."""
