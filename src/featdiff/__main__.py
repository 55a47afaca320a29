"""`python -m featdiff` is the command line."""

from featdiff.cli import main

main()
