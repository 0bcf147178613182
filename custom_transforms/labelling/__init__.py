"""From two maps to labels: mask, seeds, assignment; in memory, and in blocks with the same result."""
