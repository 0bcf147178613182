"""Which predicted particles are which true ones: by overlap of labels, by distance of centers, and the scores."""
