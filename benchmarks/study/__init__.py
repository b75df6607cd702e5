"""What an adaptive warmup does to the final loss: python -m benchmarks.study CONFIG.

The map, from the top down:
    own           a study from a Python file of one's own
    __main__      the command: runs what is missing, or writes a page
    config        from a TOML file to the runs of its grid
    pool          runs in parallel processes, with a time limit
    store         the results: JSON lines; if a run is killed, they stay
    train         one run
    warmups       what is compared, and the controls made from a run
    rules         criteria on trial, which are not part of warmopt
    hands         climbs on trial, and a rule of others, set by the loop
    optimizers    the optimizers, with their options
    tasks         what is trained; its parts are in data, models, cifar
    pages         writes tables and figures between the markers of a page
    every         the tables and figures of any grid
    tables        the tables of docs/study.md and study-tables.md
    figures       its figures
    aligned_tables, aligned_figures   those of the study of aligned mode
    short         those of docs/adaptive-experiments.md and adaptive-tables.md
    measures      regret, intervals, sensitivity to the learning rate
    quick         a small grid, which is killed half-way and continued

What reads TOML needs Python 3.11.
"""
