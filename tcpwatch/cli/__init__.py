"""The command line: commands, options, and one front end for each."""
