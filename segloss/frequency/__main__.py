"""``python -m segloss.frequency``."""

from segloss.commands import run_command

run_command("frequency")
