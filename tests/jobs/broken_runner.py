"""A runner that cannot be imported, as one whose libraries are broken."""

raise OSError("no such library")
