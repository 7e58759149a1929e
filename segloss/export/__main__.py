"""``python -m segloss.export``."""

from segloss.commands import run_command

run_command("export")
