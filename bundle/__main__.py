"""``python -m bundle COMMAND``: the release kit."""

import sys

from scripts.command_line.parser import main

VERBS = {
    "adopt": ("bundle.adopt:adopt", "make weights and thresholds the ones that detection uses by default"),
    "build": ("bundle.build:build", "build the zip of the bundle, in the form of the MONAI model zoo"),
    "verify": ("bundle.verify:verify", "check a zip as the model zoo does, in an empty folder"),
}

if __name__ == "__main__":
    sys.exit(main(verbs=VERBS, program="python -m bundle"))
