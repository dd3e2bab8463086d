"""What a report refuses."""


class ReportError(ValueError):
    """A folder that is not what it was given as, or a library that is not installed."""
