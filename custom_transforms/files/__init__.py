"""Files and names: written whole or not at all, JSON objects, the name of a tomogram."""
