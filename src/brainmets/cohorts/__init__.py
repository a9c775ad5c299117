"""Cohorts: reading, auditing and splitting them, and making phantoms."""
