"""Fitted surrogates and operators as ONNX graphs."""
