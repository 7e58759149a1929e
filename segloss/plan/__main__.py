"""``python -m segloss.plan``."""

from segloss.errors import exit_on_input_error
from segloss.plan.command import main

exit_on_input_error(main)
