"""Do the tests keep their level and the intervals their coverage? Every one of the product, by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage --write
    OMP_NUM_THREADS=1 python -m benchmarks.coverage --only detection decision --draws 500

To be run from the repository's root. Each row draws made-up studies whose truth is known, of the size the product is
for (about ten patients), and counts how often a test rejects what is true, or an interval holds the truth. Rows marked
"former" are methods that are not in use: they show what the draws ask for. All draws start from one seed and the row's
name, so that the numbers repeat, whatever else is run. ``--write`` replaces the sections of the parts that were run in
benchmarks/results/coverage.md and in docs/statistics.md, which quotes them, and leaves the others as they are. A part
is a module with a ``PART``.
"""
