"""What a model answers, for every kind of head."""

import torch
from support.models import tiny, token_windows
from transformers import LlamaForSequenceClassification

from optimum_si.algorithms.whole_model.answers import Answers


def test_a_classifier_without_a_padding_token_answers_one_text_at_a_time():
    config = tiny("llama").config
    config.pad_token_id, config.num_labels = None, 3
    model = LlamaForSequenceClassification(config).eval()
    windows = token_windows(3)
    with torch.no_grad():
        answers = Answers.of(model, {"input_ids": windows[:1]})({"input_ids": windows})
        expected = [model(window[None]).logits for window in windows]
    for answer, own in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer, own)
