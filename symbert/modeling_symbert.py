"""BERT whose layers attend with a chosen operator, and its heads, as transformers' Auto classes expect them.

Parameter names are those of transformers' BertForMaskedLM and its siblings, with the prefix `symbert` for `bert`.

Shape suffixes: B batch, L position, D hidden size, V vocabulary, P chosen position.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .attention import NOTHING_HIDDEN, AttentionMask, SelfAttention
from .configuration_symbert import SymbertConfig
from .errors import SymbertError
from .layers import FINAL, Embeddings, Encoder, MaskedLMHead, Pooler, PredictionHead, SinusoidalPositions, norm


class SymbertPreTrainedModel(PreTrainedModel):
    """How the models initialise, load and save."""

    config_class = SymbertConfig
    base_model_prefix = "symbert"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012  transformers' own form
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """BERT's initialisation (normal of `initializer_range`, biases 0, norms 1), and what single parts add."""
        super()._init_weights(module)
        if isinstance(module, SelfAttention | SinusoidalPositions):
            module.initialise()
        elif isinstance(module, PredictionHead):
            init.zeros_(module.bias)


class SymbertModel(SymbertPreTrainedModel):
    """The encoder: hidden states of every position, and BERT's pooler if it is wanted."""

    def __init__(self, config: SymbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.LayerNorm = norm(config, FINAL)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Encode `input_ids` (B, L), or `inputs_embeds` (B, L, D) in their place.

        Without `attention_mask` (packed rows, every position visible) the kernel gets no mask at all. With
        `output_positions`, flat indices row * L + column of shape (P,), the last layer ends at those positions and
        `last_hidden_state` is (P, D); there is no pooled output then.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise SymbertError("expected either `input_ids` or `inputs_embeds`")
        words_BLD = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        hidden_BLD = self.embeddings(words_BLD, token_type_ids, position_ids)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        mask = self._mask(hidden_BLD, attention_mask)
        states, probabilities = self.encoder(hidden_BLD, mask, output_positions, output_attentions)
        last = self.LayerNorm(states[-1])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        pooler_output = None
        if self.pooler is not None and output_positions is None:
            pooler_output = self.pooler(last)
        return BaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=pooler_output,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(probabilities) if output_attentions else None,
        )

    def _mask(self, hidden_BLD: Tensor, attention_mask: Tensor | None) -> AttentionMask:
        if attention_mask is None:
            return NOTHING_HIDDEN
        kernel = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_BLD,
            attention_mask=attention_mask,
            # A mask that hides nothing may be left out. To look for that on a GPU would be to wait for it.
            allow_is_bidirectional_skip=attention_mask.device.type == "cpu",
        )
        return AttentionMask(kernel, attention_mask.bool() if attention_mask.dim() == 2 else None)


class SymbertForMaskedLM(SymbertPreTrainedModel):
    """Masked language modelling with BERT's head; no pooler, decoder tied to the word embeddings."""

    _tied_weights_keys = {  # noqa: RUF012  transformers' own form
        "cls.predictions.decoder.weight": "symbert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    # The Trainer passes `num_items_in_batch`.
    accepts_loss_kwargs = True

    def __init__(self, config: SymbertConfig) -> None:
        super().__init__(config)
        self.symbert = SymbertModel(config, add_pooling_layer=False)
        self.cls = MaskedLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **options: Any,
    ) -> Any:
        """Logits (B, L, V), and the mean cross-entropy over the labels that are not -100.

        *Sparse prediction.* `masked_positions` (P,) are flat indices row * L + column into the batch; the last
        layer's output projection and feed-forward, and the head, run at those positions alone, and `logits` is
        (P, V) in their order; `labels`, if given, is (P,) too. A static P suits torch.compile: pad with any valid
        index, such as 0, and the label -100. The values are those of the dense form at the same positions.

        With `num_items_in_batch` the loss is the sum divided by that number, so that accumulated micro-batches
        add up to the mean over all masked tokens. `options` are SymbertModel's.
        """
        options |= {"output_positions": masked_positions, "return_dict": True}
        encoded = self.symbert(input_ids, attention_mask, token_type_ids, **options)
        logits = self.cls(encoded.last_hidden_state)
        loss = None
        if labels is not None:
            if labels.shape != logits.shape[:-1]:
                raise SymbertError(
                    f"`labels` has shape {tuple(labels.shape)}; expected {tuple(logits.shape[:-1])}, one per logit row"
                )
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


class SymbertForSequenceClassification(SymbertPreTrainedModel):
    """BERT's classifier or regressor over the pooled first token."""

    # Its loss is a mean over the micro-batch: the Trainer has to divide by the number of accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: SymbertConfig) -> None:
        super().__init__(config)
        self.symbert = SymbertModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Logits (B, labels); the loss follows `config.problem_type` (regression where there is one label)."""
        encoded = self.symbert(input_ids, attention_mask, token_type_ids, return_dict=True, **options)
        logits = self.classifier(self.dropout(encoded.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


class SymbertForTokenClassification(SymbertPreTrainedModel):
    """A label for every token."""

    # Its loss is a mean over the micro-batch: the Trainer has to divide by the number of accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: SymbertConfig) -> None:
        super().__init__(config)
        self.symbert = SymbertModel(config, add_pooling_layer=False)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Logits (B, L, labels); the loss is the mean cross-entropy over labels that are not -100."""
        encoded = self.symbert(input_ids, attention_mask, token_type_ids, return_dict=True, **options)
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


class SymbertForQuestionAnswering(SymbertPreTrainedModel):
    """Start and end of an answer within the text."""

    # Its loss is a mean over the micro-batch: the Trainer has to divide by the number of accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: SymbertConfig) -> None:
        super().__init__(config)
        self.symbert = SymbertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Start and end logits (B, L); the loss is their mean cross-entropy, answers beyond the text left out."""
        encoded = self.symbert(input_ids, attention_mask, token_type_ids, return_dict=True, **options)
        start_BL, end_BL = self.qa_outputs(encoded.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_BL, end_BL, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BL,
            end_logits=end_BL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


def classifier_dropout(config: SymbertConfig) -> nn.Dropout:
    """Dropout before a classifier: `classifier_dropout`, or the hidden states' where it is None."""
    probability = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if probability is None else probability)
