"""What the reports refuse."""


class ReportError(ValueError):
    """A folder or file that a report cannot be made of, or a form it cannot be made in."""
