"""report.html: a run told by its files, in one page that opens from disk."""
