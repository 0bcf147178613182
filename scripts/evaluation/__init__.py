"""The parts of `scripts.evaluate`: matching of points, overlap of volumes, scores, intervals, files."""
