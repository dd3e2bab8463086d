"""The refusals of the commands that chain others."""


class StudyError(ValueError):
    """A folder or an option that does not fit the study that was asked for."""
