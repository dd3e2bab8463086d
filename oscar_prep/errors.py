"""What the user has to mend before a corpus can be prepared."""


class PrepareError(ValueError):
    """An input, a tokenizer, a list or a corpus folder is not what was expected."""
