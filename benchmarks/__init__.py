"""What warmopt costs, what it does to a training, and what it does on a GPU.

Three programs, each with a map of its own in its `__init__.py`:
    overhead            what a step costs: python -m benchmarks.overhead
    study               what a warmup does to the final loss: python -m benchmarks.study
    gpu                 everything that needs a GPU: python -m benchmarks.gpu

What they share:
    checkout            the folder of the repository, and its commit
    markdown_tables     writes a table in Markdown
    marked              parts of a page between markers
    results/            what they have measured
"""
