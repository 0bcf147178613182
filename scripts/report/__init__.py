"""The HTML page of a detection, and the overview of many."""
