"""What an adaptive warmup does to the final loss: python -m benchmarks.study CONFIG.

The map, from the top down:
    __main__      the command: runs what is missing, or renders a page
    config        from a TOML file to the runs of its grid
    pool          the runs in parallel processes, their time limits
    store         the results: JSON lines that survive a kill
    train         one run
    warmups       what is compared, and the controls that follow from a run
    rules         candidate criteria, which are not part of warmopt
    tasks         what is trained; data, models, cifar: their parts
    pages         tables and figures into a page, between its markers
    tables, figures     of docs/study.md; short: the tables of docs/adaptive.md
    measures      regret, intervals, sensitivity
    quick         a small grid, killed half-way and resumed

Needs Python 3.11.
"""
