"""torch's own threads, and how long they keep a core busy after their work."""

import os


def spin_briefly() -> None:
    """Let idle threads of GNU OpenMP wait 0.1 ms by spinning instead of some 5; to be called before torch is imported.

    They spin on the cores on which the sparse step runs, which then takes 1.4 times as long. What the user has set
    stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "10000"
