"""The Driver port, and the DNS drivers: one file and one line in DRIVERS for a new one."""
