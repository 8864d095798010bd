"""onnxopt: ONNX models made smaller and faster, and proved to do the same."""
