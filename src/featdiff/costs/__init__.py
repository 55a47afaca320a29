"""What a study will cost: FLOPs, time, memory and disk. Here is what stages share; each prices itself in its folder."""
