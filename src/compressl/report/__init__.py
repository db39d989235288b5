"""The page about one run, or comparing several: one HTML file that needs nothing else."""

from compressl.report.page import write_report

__all__ = ["write_report"]
