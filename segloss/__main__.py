"""``python -m segloss``."""

from segloss.commands import main

main()
