"""UT1 blocklists: which categories a URL belongs to."""
