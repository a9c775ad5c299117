"""From score tables to comparisons, figures and a written conclusion."""
