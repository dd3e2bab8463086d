"""SQuAD: answers as spans of a paragraph, fine-tuned and scored by the official rules."""
