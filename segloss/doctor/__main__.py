"""``python -m segloss.doctor``; started by torchrun or another launcher, each process looks at a share of the files."""

from functools import partial

from segloss.doctor.command import main
from segloss.errors import exit_on_input_error
from segloss.ranks import together

exit_on_input_error(partial(together, main))
