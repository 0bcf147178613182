"""The command line: verbs, options and help from their signatures, and what comes next."""
