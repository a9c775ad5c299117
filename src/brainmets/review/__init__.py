"""Looking at cases: which are hard, what each model did there, in 2D and 3D."""
