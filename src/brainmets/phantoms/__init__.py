"""Synthetic patients: heads, metastases and scanners, so that the laboratory can be tried without data."""
