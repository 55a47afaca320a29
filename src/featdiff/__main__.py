"""`python -m featdiff` is the command line."""

from featdiff.workflow.cli import main

main()
