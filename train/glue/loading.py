"""A checkpoint's tokenizer, configuration and model, the model under a fresh head."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging

import symbert  # noqa: F401 - tells transformers' Auto classes of its models
from durable.errors import with_hint
from symbert.checkpoint import MISFITS, answer_plainly
from train.checkpoint import WEIGHTS
from train.errors import TrainError
from train.glue.checkpoint import Subject
from train.positions import untrained_positions
from train.tokenizer import first_line, open_checked_tokenizer

UNREAD = "sdpa_unread"
"""transformers' sdpa, but the mask is made without looking at its values, for which a GPU would be waited for."""


def load_tokenizer(subject: Subject) -> Any:
    """The checkpoint's own tokenizer.

    Raises TrainError if it is damaged, is not that of its tokenizer.json or knows more tokens than the model.
    """
    config = load_config(subject)
    tokenizer = open_checked_tokenizer(subject.folder)
    if len(tokenizer) > config.vocab_size:
        raise TrainError(
            f"{subject.folder}: the tokenizer has {len(tokenizer):,} tokens, the model {config.vocab_size:,}: "
            "they do not belong together"
        )
    if tokenizer.pad_token_id is None:
        raise TrainError(f"{subject.folder}: the tokenizer has no padding token")
    return tokenizer


def load_config(subject: Subject) -> Any:
    """The checkpoint's configuration. Raises TrainError, naming the file, if it is that of no model known here."""
    try:
        return AutoConfig.from_pretrained(subject.folder, local_files_only=True, trust_remote_code=False)
    except MISFITS as error:
        refusal = TrainError(f"{subject.folder / 'config.json'}: {first_line(error)}")
        for hint in getattr(error, "__notes__", []):
            with_hint(refusal, hint)
        raise refusal from None


def has_token_types(subject: Subject) -> bool:
    """Whether the model tells the first sentence from the second by token types."""
    return (getattr(load_config(subject), "type_vocab_size", 0) or 0) > 1


def usable_length(config: Any, max_length: int) -> int:
    """`max_length`, or as many positions as the model has."""
    return min(max_length, getattr(config, "max_position_embeddings", max_length))


def say_untrained(subject: Subject, max_length: int, notice: Callable[[str], None]) -> None:
    """Tell `notice` where inputs of `max_length` tokens reach positions that pre-training has not."""
    config = load_config(subject).to_dict()
    if untrained := untrained_positions(config, max_length):
        notice(f"{subject.name}: {untrained}; --set max_length={config['trained_positions']} leaves them out")


def load_classifier(subject: Subject, num_labels: int, seed: int) -> Any:
    """The checkpoint under a new classification head; raises as load_with_head does."""
    return load_with_head(subject, AutoModelForSequenceClassification, seed, num_labels=num_labels)


def load_with_head(subject: Subject, kind: Any, seed: int, **settings: Any) -> Any:
    """The checkpoint as one of transformers' Auto classes, under a new head, in float32 on the CPU.

    The head is drawn from (seed, parameter name) alone: neither torch's global generator nor the kind of encoder
    has a say. A pooler is kept where the checkpoint has one. Raises TrainError if the weights do not fit the
    configuration.
    """
    try:
        with silent_transformers():
            model, report = kind.from_pretrained(
                subject.folder,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                **settings,
            )
    except SafetensorError as error:
        raise TrainError(f"{subject.folder / WEIGHTS} is damaged: {error}") from None
    prefix = f"{model.base_model_prefix}."
    misfits = {name: (found, wanted) for name, found, wanted in report["mismatched_keys"]}
    for name in sorted({*report["missing_keys"], *misfits}):
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler."):
            found = f"has shape {tuple(misfits[name][0])}" if name in misfits else "is missing"
            raise TrainError(f"{subject.folder}: the weight {name} {found}, which config.json does not fit")
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(UNREAD)
    _draw_head(model, {*report["missing_keys"], *misfits}, seed)
    answer_plainly(model)
    return model


def _draw_head(model: Any, missing: set[str], seed: int) -> None:
    prefix = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        if name.startswith(prefix) and name not in missing:
            continue
        with torch.no_grad():
            if parameter.dim() < 2:
                parameter.zero_()
                continue
            digest = hashlib.blake2b(f"{seed} {name.removeprefix(prefix)}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
            parameter.normal_(0.0, model.config.initializer_range, generator=generator)


def unread_mask(*args: Any, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """The mask of sdpa, in transformers' mask signature. Where batches have nothing to hide they have no mask."""
    options["allow_is_bidirectional_skip"] = attention_mask is None
    return sdpa_mask(*args, attention_mask=attention_mask, **options)


AttentionInterface.register(UNREAD, sdpa_attention_forward)
AttentionMaskInterface.register(UNREAD, unread_mask)


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """No report of the weights that are new, which is what fine-tuning is about, and no bar for a second's work."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
