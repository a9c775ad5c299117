"""Cohorts: reading, auditing and splitting them."""
