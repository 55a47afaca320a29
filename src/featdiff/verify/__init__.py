"""The method's acceptance tests on this installation: worlds with known answers, and what is found of them."""

from featdiff.verify.check import Check, table
from featdiff.verify.run import EXPERIMENTS, verify

__all__ = ["EXPERIMENTS", "Check", "table", "verify"]
