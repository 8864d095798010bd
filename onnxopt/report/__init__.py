"""What was done to a model, what it gained and whether it is right: one object, many renderings."""

from onnxopt.report.report import Report, Verification, versions

__all__ = ["Report", "Verification", "versions"]
