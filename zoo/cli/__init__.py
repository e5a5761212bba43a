"""The command line: parses, calls, prints. Exit codes: 0 done; 1 failed, with a message; 2 a command line that is none."""
