"""What the user has to mend before URLs can be judged."""


class BlocklistError(ValueError):
    """A folder of lists, an index or an archive is missing, damaged, or laid out in another way than UT1's."""
