"""What the command lines of all benchmarks share.

Their help is the head of the module, examples and all, and with :func:`segloss.errors.exit_on_input_error` what a user
can mend is one line and status 2, as of the scripts.
"""

import argparse


def parser_of(head: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=head, formatter_class=argparse.RawDescriptionHelpFormatter)
