"""Numbers of the methods that outlive a stage: raise one by hand when what it makes changes.

They go into the fingerprint of the stage `train`, into the key by which a killed training goes on, and into that of
the activation cache, so that nothing old passes for new.
"""

TRAINING = 1
"""How a crosscoder is trained: initial weights, loss, optimizer, schedule."""
HARVEST = 1
"""How residual streams are read: rows of the corpus, hook point, kept positions."""
