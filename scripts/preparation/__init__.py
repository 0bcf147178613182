"""Training data from tomograms and particle lists: shapes painted into label volumes, and a datalist."""
