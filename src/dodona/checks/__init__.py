"""One module per method: the method against its oracles, and the known bugs that must be caught.

Each has SUBJECTS (the public functions under test), run(subjects, *, full) -> Iterator[Check], and
MUTANTS. ``run`` reaches a method only through ``subjects``, so a mutant can stand in for it.
"""
