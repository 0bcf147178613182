"""``python -m scripts COMMAND``: see scripts/cli.py."""

import sys

from scripts.cli import main

if __name__ == "__main__":
    sys.exit(main())
