"""What is written about detections, weights and bundles, as types."""
