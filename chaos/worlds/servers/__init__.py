"""Real servers, started in the foreground with a directory of their own: for contract tests and for the lab."""
