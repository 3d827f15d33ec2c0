"""The lab: three sites as network namespaces, with real servers in them, that can be made to die (DESIGN 8)."""
