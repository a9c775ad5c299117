"""Running notebooks and whole studies: papermill, Snakemake, logs, devices."""
