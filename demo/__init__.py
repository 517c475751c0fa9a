"""The product's whole story on one machine: ``python -m demo`` (or ``make demo``).

``system`` starts and kills real processes, ``story`` tells the five chapters and checks each, ``__main__`` prints
the outcome. The scenario tests use ``system`` too.
"""
