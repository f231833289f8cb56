"""The command line: parse, call the pipeline, show. Nothing else may import from here."""
