"""The fault matrix: a region of real components under load, and everything that happens in a data centre.

`faults` is the catalogue, `region` what is under fire and how it recovers, `test_matrix` the account. What holds after
each fault: modalities are answered again, and what they are told is committed. What holds after all: every acknowledged
instance is committed exactly once and comes back as it was sent, counters equal counts, nothing waits, verify is clean.
"""
