"""The command line: `offramp`."""
