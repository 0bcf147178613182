"""``python -m scripts COMMAND``: see scripts/command_line/parser.py."""

import sys

from scripts.command_line.parser import main

if __name__ == "__main__":
    sys.exit(main())
