"""The parts of `scripts.evaluation.evaluate`: matching of points, overlap of volumes, scores, intervals, files."""
