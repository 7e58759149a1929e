"""``python -m segloss.plan``."""

from segloss.commands import run_command

run_command("plan")
