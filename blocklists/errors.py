"""What the user has to mend before URLs can be judged."""


class BlocklistError(ValueError):
    """A folder of lists is missing, or laid out in another way than UT1's."""
