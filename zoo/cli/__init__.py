"""The command line: parses, calls, prints. Exit codes: 0 done; 1 failed, with a message; 2 wrong usage, as an unknown option."""
