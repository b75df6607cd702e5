"""All around the package: docs, site, types, wheel, command line, benchmarks."""
