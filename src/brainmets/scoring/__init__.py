"""Comparing predicted label maps with references: regions, lesions, tables."""
