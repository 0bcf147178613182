"""From a handful of examples to a picker: which of the particles that the general networks find are the user's."""
