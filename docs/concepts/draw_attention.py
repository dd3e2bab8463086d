"""Draw docs/concepts/attention.svg: each operator's attention on one sentence, before any training.

python docs/concepts/draw_attention.py
"""

from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from symbert import OPERATORS, SymbertConfig, SymbertModel

SENTENCE = "[CLS] the dog saw the cat before the cat saw the dog [SEP]"
HEAD = 0


def draw_operator(axes: Axes, operator: str, tokens: list[str]) -> None:
    """One head of the first layer of BERT-base at its initialisation; of additive attention, all heads' weights."""
    torch.manual_seed(0)
    model = SymbertModel(SymbertConfig.of_size("base", num_hidden_layers=1, attention_operator=operator)).eval()
    # Without training a word is a random vector, whatever its number.
    known = sorted(set(tokens))
    ids = torch.tensor([[1000 + known.index(token) for token in tokens]])
    with torch.no_grad():
        probabilities = model(ids, output_attentions=True).attentions[0]
        if probabilities is None:
            hidden = model.embeddings(model.embeddings.word_embeddings(ids), None, None)
            module = model.encoder.layer[0].attention.self
            scores = module.query_score(module.query(hidden))[0] * module.scaling
            axes.imshow(scores.softmax(0).T, vmin=0, vmax=0.5, cmap="Blues")
            axes.set(title=f"{operator}\none weight a token", ylabel="head")
            axes.set_xticks(range(len(tokens)), tokens, rotation=90)
            return
    entropy = torch.special.entr(probabilities[0]).sum(-1).mean()
    axes.imshow(probabilities[0, HEAD], vmin=0, vmax=0.5, cmap="Blues")
    axes.set(title=f"{operator}\nentropy {entropy:.2f} nats", yticks=range(len(tokens)), yticklabels=tokens)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90)


def main() -> None:
    """Draw every operator side by side."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "symbert"})  # the same bytes each time
    tokens = SENTENCE.split()
    figure = Figure(figsize=(3 * len(OPERATORS), 3.6), layout="constrained")
    for axes, operator in zip(figure.subplots(1, len(OPERATORS)), OPERATORS, strict=True):
        draw_operator(axes, operator, tokens)
    figure.savefig(Path(__file__).with_name("attention.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
