"""The refusals of pre-training and fine-tuning."""


class TrainError(ValueError):
    """A corpus, run folder, checkpoint or device that does not fit what was asked."""
