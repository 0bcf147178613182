"""The two demos: a simulated tomogram, and a real one."""
