"""The study's report: one folder of pages that opens with no network."""
