"""From labels to the table: centers, volumes, neighbours, gold; what the filters share."""
