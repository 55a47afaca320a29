"""What a study will cost: FLOPs, time, memory and disk, stage by stage, from its settings and the shape of its models.

Nothing here imports torch, downloads anything, or looks at a clock.
"""
