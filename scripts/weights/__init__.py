"""Weights after training: joined, calibrated, exported to ONNX."""
