"""What transformers' AutoTokenizer makes of a tokenizer folder, as far as its two files of JSON tell.

Of the ids, tokenizer.json decides in a corpus. AutoTokenizer looks into tokenizer_config.json first: the classes of
`AS_IT_IS` then take tokenizer.json as it is, but BertTokenizer takes its words alone and makes the normaliser anew from
three settings, with defaults for those that are not there (transformers 5.17 to 5.23). The tests compare this with
AutoTokenizer itself, whose import takes seconds. See docs/decisions/0013-a-tokenizer-is-opened-as-it-packed.md.
"""

import re
from collections.abc import Mapping
from typing import Any

AS_IT_IS = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
DEFAULTS = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
"""BertTokenizer's; accents that no setting speaks of are stripped if letters are made small."""
SPECIAL = ("cls_token", "sep_token", "pad_token", "mask_token", "unk_token")
"""Those of BERT, which a corpus takes for text wherever they are written out on a page."""
NAMES_TOKENS = re.compile(r"_tokens?(_|$)")
# What BertTokenizer sets, whatever tokenizer.json says.
LONGEST_WORD, CONTINUING = 100, "##"


def is_berts(settings: Mapping[str, Any]) -> bool:
    """Whether a tokenizer_config.json names BertTokenizer, which makes the normaliser anew."""
    return str(settings.get("tokenizer_class")).removesuffix("Fast") == "BertTokenizer"


def contradicted(settings: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, bool | None]:
    """The settings that have BertTokenizer normalise otherwise than tokenizer.json's BertNormalizer, with its values.

    Empty if it has no such normaliser.
    """
    normalizer = document.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return {}
    given = {**DEFAULTS, **{name: settings[name] for name in DEFAULTS if name in settings}}
    wanted = {
        "do_lower_case": normalizer["lowercase"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
    }
    # Of other types BertTokenizer takes none: 1 and null are no bool to it.
    found = {name: value for name, value in wanted.items() if given[name] is not value}
    accents = normalizer.get("strip_accents")
    strips = given["strip_accents"]
    if (wanted["do_lower_case"] if strips is None else strips) is not (
        wanted["do_lower_case"] if accents is None else accents
    ):
        found["strip_accents"] = accents
    return found


def opens_alike(settings: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether AutoTokenizer is known to give the ids of tokenizer.json; if not, it must be opened and asked."""
    # Any other `*_token` is one that AutoTokenizer finds in a text, and so are those of lists and tables of tokens.
    if any(value and NAMES_TOKENS.search(name) and name not in SPECIAL for name, value in settings.items()):
        return False
    return settings.get("tokenizer_class") in AS_IT_IS or (
        is_berts(settings) and not contradicted(settings, document) and _is_berts_kind(settings, document)
    )


def _is_berts_kind(settings: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether BertTokenizer sets nothing but what tokenizer.json says too."""
    normalizer, pre_tokenizer = (document.get(part) or {} for part in ("normalizer", "pre_tokenizer"))
    model, unknown = document.get("model") or {}, settings.get("unk_token", "[UNK]")
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and pre_tokenizer.get("type") == "BertPreTokenizer"
        and model.get("type", "WordPiece") == "WordPiece"  # bert-base-uncased's, as the hub has it, names no type
        and model.get("continuing_subword_prefix") == CONTINUING
        and model.get("max_input_chars_per_word") == LONGEST_WORD
        and model.get("unk_token") == (unknown.get("content") if isinstance(unknown, dict) else unknown)
    )
