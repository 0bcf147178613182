"""``python -m bundle COMMAND``: the release kit."""

import sys

from scripts.cli import main

VERBS = {"join": ("bundle.join:join", "join the weights of two training runs into one file")}

if __name__ == "__main__":
    sys.exit(main(verbs=VERBS, program="python -m bundle"))
