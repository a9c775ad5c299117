"""From raw scans to prepared cases: sort, register, strip, resample once, and show what came out."""
